"""A prompt before the first request. OpenVINO packs an expert's weights when a token is first routed to it.

With the demo model that takes 3 s, which the first request would wait for. It packs some of them once more for long
prompts: the first of those takes 1.5 s longer than others.
"""

import random

import numpy as np
import openvino as ov
import openvino_genai as genai

_TOKENS = 32
"""Enough that every expert gets some."""


def warm_up(pipeline: genai.ContinuousBatchingPipeline, max_seq_len: int, vocab_size: int) -> None:
    """Compute a short prompt of different tokens, and one token after it."""
    num_tokens = min(_TOKENS, max_seq_len - 2)
    token_ids = random.Random(0).choices(range(vocab_size), k=num_tokens)
    config = genai.GenerationConfig()
    config.apply_chat_template, config.ignore_eos, config.max_new_tokens = False, True, 2
    handle = pipeline.add_request(0, ov.Tensor(np.array([token_ids], np.int64)), config)
    while pipeline.has_non_finished_requests():
        pipeline.step()
    handle.read_all()  # held until here: GenAI drops a request as soon as nothing holds its handle
