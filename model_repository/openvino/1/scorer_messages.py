"""What the engine's process and that of scorer.py say to one another: values, pickled one after the other."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from log_probs import LogProbs
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Open:
    """A new sequence: i64 [N] of its prompt, and how many of the most likely tokens are wanted at each place.

    `num_prompt_top` None: nothing of the prompt is wanted. `reserved_tokens` is how long the sequence may become.
    """

    key: int
    prompt_token_ids: NDArray[np.int64]
    num_prompt_top: int | None
    num_top: int
    reserved_tokens: int


@dataclass(frozen=True, slots=True)
class Extend:
    """More tokens of the answer, or none. `is_last`: no others will follow."""

    key: int
    token_ids: list[int]
    is_last: bool


@dataclass(frozen=True, slots=True)
class Drop:
    """Nothing more of a sequence is wanted."""

    key: int


Command: TypeAlias = Open | Extend | Drop


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """The next part of a sequence: log probabilities of the prompt from its second token on, then tokens of the answer
    with theirs. It may be empty, as a sign that the work goes on. Nothing follows a piece that `is_last`.
    """

    key: int
    prompt: LogProbs | None
    token_ids: list[int]
    answer: LogProbs | None
    is_last: bool
