"""Log probabilities from logits: of given tokens, of the most likely ones, and ranks. Pure."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_TOP = 20
"""Most likely tokens that a request may ask for: OpenAI's limit."""


@dataclass(frozen=True, slots=True, eq=False)
class LogProbs:
    """Of M tokens, each under the model's distribution at its place: natural logarithms, before temperature, penalties
    and guides.

    `log_probs` f32 [M] and `ranks` i32 [M], where 1 is the most likely token, are those of the tokens themselves.
    `top_token_ids` i32 [M, K] and `top_log_probs` f32 [M, K] are the most likely tokens, the first one first.
    """

    log_probs: NDArray[np.float32]
    ranks: NDArray[np.int32]
    top_token_ids: NDArray[np.int32]
    top_log_probs: NDArray[np.float32]

    def to_tensors(self, prefix: str = "") -> dict[str, NDArray[Any]]:
        """As the model's outputs, with a batch of one; their names begin with `prefix`."""
        arrays = {
            "token_log_probs": self.log_probs,
            "token_ranks": self.ranks,
            "top_token_ids": self.top_token_ids,
            "top_log_probs": self.top_log_probs,
        }
        return {prefix + name: array[None] for name, array in arrays.items()}


def to_log_probs(logits: NDArray[np.float32], token_ids: NDArray[np.int64], num_top: int) -> LogProbs:
    """`logits` [M, vocabulary] are those that the M tokens were or would be chosen by."""
    chosen = np.take_along_axis(logits, token_ids[:, None], axis=1)
    highest = logits.max(axis=1, keepdims=True)
    log_sum = highest[:, 0] + np.log(np.exp(logits - highest).sum(axis=1, dtype=np.float64))
    top = _highest(logits, num_top)
    return LogProbs(
        log_probs=(chosen[:, 0] - log_sum).astype(np.float32),
        ranks=1 + (logits > chosen).sum(axis=1, dtype=np.int32),
        top_token_ids=top.astype(np.int32),
        top_log_probs=(np.take_along_axis(logits, top, axis=1) - log_sum[:, None]).astype(np.float32),
    )


def _highest(logits: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """[M, count]: the columns with the highest logits, in descending order; of equal ones any."""
    if count == 0:
        return np.empty((len(logits), 0), np.int64)
    columns = np.argpartition(logits, -count, axis=1)[:, -count:]
    order = np.argsort(-np.take_along_axis(logits, columns, axis=1), axis=1)
    return np.take_along_axis(columns, order, axis=1)
