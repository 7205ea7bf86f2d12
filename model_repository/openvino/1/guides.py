"""Compile a guide before its request joins the batch.

GenAI compiles guides inside `step`, where an invalid one fails every request of the batch, and its Python API cannot
only compile one. So each guide first runs on a second pipeline, with a model of one tiny layer and the same vocabulary.
The two share the tokenizer, and with it xgrammar's cache: the batch does not compile the guide again.
"""

import re
from itertools import count
from pathlib import Path

import numpy as np
import openvino as ov
import openvino_genai as genai
from generation import InvalidRequest


class GuideChecker:
    """Owns the tiny pipeline. Not for use from several threads at once."""

    def __init__(self, model_dir: Path, tokenizer: genai.Tokenizer) -> None:
        scheduler = genai.SchedulerConfig()
        scheduler.num_kv_blocks = 8
        self._pipeline = genai.ContinuousBatchingPipeline(model_dir, tokenizer, scheduler, "CPU")
        self._request_ids = count()

    def check(self, config: genai.GenerationConfig) -> None:
        """Raises InvalidRequest for a guide that does not compile; does nothing for a request without one."""
        if config.structured_output_config is None:
            return
        trial = genai.GenerationConfig()
        trial.apply_chat_template = False
        trial.max_new_tokens = 1
        trial.structured_output_config = config.structured_output_config
        handle = self._pipeline.add_request(next(self._request_ids), ov.Tensor(np.zeros((1, 1), np.int64)), trial)
        try:
            self._pipeline.step()
        except Exception as error:
            handle.cancel()
            self._pipeline.step()  # releases the cancelled request
            raise InvalidRequest(f"guided_decoding_guide does not compile: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """xgrammar's message without the position in its source code."""
    text = " ".join(str(error).split())
    return re.sub(r"^\[[\d:]+\] \S+:\d+: ", "", text)[:500]
