"""Logits in, log probabilities with the most likely tokens out: a step of the ensemble `tensorrt_llm_log_probs`."""

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from log_probs import MAX_TOP, to_log_probs

PASSED_ON = ("output_ids", "kv_cache_reused_blocks")


class TritonPythonModel:
    """Loaded by Triton's Python backend."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response for each request."""
        return [_answer({tensor.name(): tensor.as_numpy() for tensor in request.inputs()}) for request in requests]


def _answer(inputs: dict[str, Any]) -> Any:
    """`output_ids` is [1, 1, N], and the logits are [1, N, 1, vocabulary]: those by which the N tokens were chosen."""
    token_ids = inputs["output_ids"].reshape(-1)
    logits = inputs["generation_logits"]
    if logits.shape[:3] != (1, token_ids.size, 1):
        return _refusal(f"generation_logits is {list(logits.shape)} for {token_ids.size} tokens")
    found = to_log_probs(logits.reshape(token_ids.size, logits.shape[3]), token_ids.astype(np.int64), MAX_TOP)
    passed_on = {name: inputs[name] for name in PASSED_ON if name in inputs}
    return pb_utils.InferenceResponse([pb_utils.Tensor(*item) for item in (passed_on | found.to_tensors()).items()])


def _refusal(message: str) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))
