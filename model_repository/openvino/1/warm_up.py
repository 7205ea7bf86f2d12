"""One prompt before the first request. OpenVINO packs an expert's weights when a token is first routed to it.

With the demo model that takes 3 s of processor time, which the first requests would wait for.
"""

import random

import numpy as np
import openvino as ov
import openvino_genai as genai


def warm_up(pipeline: genai.ContinuousBatchingPipeline, num_tokens: int, vocab_size: int) -> None:
    """Compute the tokens in one step. They differ, so that every expert gets some."""
    token_ids = random.Random(0).choices(range(vocab_size), k=num_tokens)
    config = genai.GenerationConfig()
    config.apply_chat_template = False
    config.max_new_tokens = 1
    pipeline.add_request(0, ov.Tensor(np.array([token_ids], np.int64)), config)
    while pipeline.has_non_finished_requests():
        pipeline.step()
