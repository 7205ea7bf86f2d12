"""Our own words for one generation: what is asked of an engine, what it gives back, and why it ended.

Refuses wire formats: neither OpenAI's nor Triton's names of things appear here, and nothing here does I/O.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """One request's wishes, checked. None means not asked for: nothing is sent and the engine's neutral value holds.

    `temperature` 0 is greedy. `seed` is a 64 bit unsigned integer. `min_tokens` also keeps stop strings quiet.
    """

    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    top_k: int | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    min_tokens: int | None = None
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EndTokens:
    """The ids that end a turn: the engine watches for one of them, the frontend for the others."""

    end_id: int
    pad_id: int
    other_end_ids: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """All an engine needs. `sampling_params.max_tokens` fits the context beside `prompt_token_ids`."""

    prompt_token_ids: Sequence[int]
    sampling_params: SamplingParams
    end_tokens: EndTokens


class TokenChunk(NamedTuple):
    """Tokens that an engine has generated since its last chunk: none, one or several; never the end token.

    A tuple, because one is made for every token of every stream, and a frozen dataclass takes three times as long.
    """

    token_ids: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one request. The end token is not delivered and not counted."""

    num_prompt_tokens: int
    num_completion_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Why a generation is over; `stop_reason` is the stop string that was found."""

    finish_reason: FinishReason
    stop_reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What the loaded engine says of itself: limits in requests and tokens, and the names of the inputs it takes."""

    max_batch_size: int
    max_seq_len: int
    inputs: frozenset[str]


def finish_reason(*, stop_matched: bool, num_completion_tokens: int, max_tokens: int) -> FinishReason:
    """Why generation ended, from facts: engines do not say.

    `max_tokens` is what the engine enforced. The end token is never delivered, so fewer tokens than that, without a
    match of ours, means the model ended its turn.
    """
    if stop_matched:
        return "stop"
    return "length" if num_completion_tokens >= max_tokens else "stop"
