"""Stands for TensorRT-LLM's backend in a real Triton, as a Python model: its logits are drawn by a seed, and known.

Each token is the most likely one. A request goes on until its tokens are generated, or another with the same id says
`stop`; the last response has no token. Sources, TensorRT-LLM 1.2: model_instance_state.cc, llmRequest.cpp.
"""

import threading
import time
from typing import Any

import numpy as np

VOCAB_SIZE = 32000
FAILS_AFTER = 13
"""With this as the last token of the prompt, the engine fails."""
STEP_S = 0.005
"""Seconds of a step, which makes two tokens."""


def logits_of(prompt_token_ids: list[int], position: int) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """The logits, [vocabulary], that the token at a position of the answer is chosen by."""
    return np.random.default_rng([*prompt_token_ids, position]).normal(0, 3, VOCAB_SIZE).astype(np.float32)


class TritonPythonModel:
    """Loaded by Triton's Python backend."""

    def initialize(self, args: dict[str, str]) -> None:
        """Declare the gauge of active requests."""
        import triton_python_backend_utils as pb_utils  # only in Triton: tests import this module too

        self._pb = pb_utils
        self._lock = threading.Lock()
        self._stopped: set[str] = set()
        self._family = pb_utils.MetricFamily(
            name="nv_trt_llm_request_metrics", description="requests", kind=pb_utils.MetricFamily.GAUGE
        )
        self._active = self._family.Metric(labels={"model": args["model_name"], "request_type": "active"})

    def execute(self, requests: list[Any]) -> None:
        """Answer each request in a thread of its own."""
        for request in requests:
            inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            if "stop" in inputs:
                assert request.request_id()
                self._stopped.add(request.request_id())
                request.get_response_sender().send(flags=self._pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
                continue
            arguments = inputs, request.request_id(), request.get_response_sender()
            threading.Thread(target=self._generate, args=arguments, daemon=True).start()

    def _generate(self, inputs: dict[str, Any], request_id: str, sender: Any) -> None:
        prompt, count = inputs["input_ids"].reshape(-1).tolist(), int(inputs["request_output_len"].item())
        if prompt[-1] == FAILS_AFTER:
            error = self._pb.TritonError("Encountered an error in forwardAsync function", self._pb.TritonError.INTERNAL)
            sender.send(self._pb.InferenceResponse(error=error), self._pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            return
        self._count(1)
        for first in range(0, count, 2):  # two tokens at a time, as when a response waited for the step after it
            if sender.is_cancelled() or request_id in self._stopped:
                break
            time.sleep(STEP_S)
            rows = [logits_of(prompt, position) for position in range(first, min(first + 2, count))]
            sender.send(self._response(inputs, np.stack(rows)))
        self._count(-1)
        sender.send(
            self._response(inputs, np.empty((0, VOCAB_SIZE), np.float32)),
            self._pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL,
        )

    def _response(self, inputs: dict[str, Any], logits: "np.ndarray[Any, np.dtype[np.float32]]") -> Any:
        token_ids = logits.argmax(axis=1).astype(np.int32)
        outputs = {"output_ids": token_ids[None, None], "sequence_length": np.array([[len(logits)]], np.int32)}
        if "return_generation_logits" in inputs:
            outputs["generation_logits"] = logits[None, :, None]
        return self._pb.InferenceResponse([self._pb.Tensor(*item) for item in outputs.items()])

    def _count(self, change: int) -> None:
        """Metrics of Triton's Python backend are not safe for threads."""
        with self._lock:
            self._active.increment(change)
