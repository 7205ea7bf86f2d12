"""The logits of an engine that gathers them: each token's log probability must follow from them."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from build_engine.errors import EngineError

from .answers import HOUSE
from .client import as_list
from .model import Model, check_complete

LOGITS = "return_generation_logits"
_NUM_TOKENS = 8
_TOLERANCE = 0.01
"""Of log probabilities, which the engine computes of the same float32 logits."""


def check_logits(model: Model) -> Iterator[str]:
    """Lines for the log. Raises EngineError for logits that are missing or that belong to other tokens."""
    if not model.gathers_logits:
        return
    answer = model.generate(model.request(HOUSE.text, _NUM_TOKENS, return_log_probs=True, **{LOGITS: True}))
    check_complete(answer, _NUM_TOKENS)
    rows = [row for event in answer.events for row in _rows(event, model.vocab_size)]
    for position, (row, token_id, given) in enumerate(zip(rows, answer.token_ids, answer.log_probs, strict=True)):
        computed = float(row[token_id] - np.logaddexp.reduce(row))
        if not abs(computed - given) <= _TOLERANCE:
            raise EngineError(
                f"the logits of token {position} give it a log probability of {computed:.3f}, and the engine says"
                f" {given:.3f}; accepted: a difference of at most {_TOLERANCE}"
            )
    yield f"the logits of {_NUM_TOKENS} tokens give their log probabilities"


def _rows(event: Mapping[str, Any], vocab_size: int) -> NDArray[np.float64]:
    """[N, vocabulary] of the N tokens of a response. Raises EngineError for another number of logits."""
    num_tokens = len(as_list(event.get("output_ids", [])))
    logits = np.array(as_list(event.get("generation_logits", [])), np.float64)
    if logits.size != num_tokens * vocab_size:
        raise EngineError(
            f"the engine gave {logits.size} logits for {num_tokens} tokens; accepted: {vocab_size} for each"
        )
    return logits.reshape(num_tokens, vocab_size)
