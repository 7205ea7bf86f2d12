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
    `stop_token_ids` end the answer like the model's own end tokens, also with `ignore_eos`. `logit_bias` has one
    number for each token of the vocabulary. `shown_token_ids` are control tokens that the text shows even where others
    are skipped. `guide` is a grammar in EBNF that is known to compile.
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
    stop_token_ids: frozenset[int] = frozenset()
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    shown_token_ids: frozenset[int] = frozenset()
    logprobs: bool | None = None
    logit_bias: Sequence[float] | None = None
    guide: str | None = None


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

    `log_probs` has one natural logarithm for each of them, or nothing if they were not asked for; `num_cached_tokens`
    is the prompt's, as in Usage. A tuple, because one is made for every token of every stream, and a frozen dataclass
    takes three times as long.
    """

    token_ids: Sequence[int]
    log_probs: Sequence[float] = ()
    num_cached_tokens: int | None = None


class Token(NamedTuple):
    """One token of an answer. `text` is its share of the answer's bytes, `log_prob` None if it was not asked for."""

    token_id: int
    text: bytes
    log_prob: float | None


class Delta(NamedTuple):
    """What an answer grew by. `tokens` are those whose text is decided by now, if the request wants to see them.

    `num_completion_tokens` counts all tokens so far, those held back included.
    """

    text: str
    tokens: Sequence[Token] = ()
    num_completion_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one request. The end token is not delivered and not counted.

    `num_cached_tokens` of the prompt were in the engine's KV cache; None where nobody asked.
    """

    num_prompt_tokens: int
    num_completion_tokens: int
    num_cached_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Why a generation is over; `stop_reason` is the stop string or the id from `stop_token_ids` that ended it."""

    finish_reason: FinishReason
    stop_reason: str | int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one answer ended and what it took."""

    ending: Ending
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What the loaded engine says of itself: limits in requests and tokens, and the names of the inputs it takes.

    `honours` are the fields of SamplingParams that it has an input for. `tokens_per_block` is of its KV cache, where
    each request is to tell how many blocks it found there, else None.
    """

    max_batch_size: int
    max_seq_len: int
    inputs: frozenset[str]
    honours: frozenset[str]
    tokens_per_block: int | None = None


def finish_reason(*, stop_matched: bool, num_completion_tokens: int, max_tokens: int) -> FinishReason:
    """Why generation ended, from facts: engines do not say.

    `max_tokens` is what the engine enforced. The end token is never delivered, so fewer tokens than that, without a
    match of ours, means the model ended its turn.
    """
    if stop_matched:
        return "stop"
    return "length" if num_completion_tokens >= max_tokens else "stop"
