"""A few prompts before the first request. OpenVINO packs an expert's weights when a token is first routed to it.

It packs them again for other numbers of tokens, as its kernels for few and for many differ. With the demo model all of
it takes 6 s of processor time, which the first requests would wait for.
"""

import random

import numpy as np
import openvino as ov
import openvino_genai as genai


def warm_up(pipeline: genai.ContinuousBatchingPipeline, num_tokens: int, vocab_size: int) -> None:
    """Compute a prompt that fills a step, shorter ones, and a single token after each."""
    for length in (num_tokens, num_tokens // 4, num_tokens // 16):
        _compute(pipeline, max(length, 1), vocab_size)


def _compute(pipeline: genai.ContinuousBatchingPipeline, num_tokens: int, vocab_size: int) -> None:
    """The tokens differ, so that every expert gets some, and from those of other lengths: nothing is cached."""
    token_ids = random.Random(num_tokens).choices(range(vocab_size), k=num_tokens)
    config = genai.GenerationConfig()
    config.apply_chat_template, config.ignore_eos, config.max_new_tokens = False, True, 2
    pipeline.add_request(0, ov.Tensor(np.array([token_ids], np.int64)), config)
    while pipeline.has_non_finished_requests():
        pipeline.step()
