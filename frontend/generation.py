"""One generation as values: what an engine is asked for, what it returns, and why it ended.

Not here: the wire formats of OpenAI and Triton, and I/O.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, NamedTuple

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """The checked sampling parameters of a request. None: not asked for, not sent, and the engine's default applies.

    `temperature` 0 is greedy. `seed` is a 64 bit unsigned integer. Before `min_tokens`, stop strings do not stop
    either. `stop_token_ids` end the answer like the model's own end tokens, also with `ignore_eos`. `logprobs`: of the
    answer's tokens. `top_logprobs` and `prompt_logprobs`: so many of the most likely tokens with each token of the
    answer, and with each of the prompt; 0 is the token's own log probability and rank only. `logit_bias` has one number
    for each token of the vocabulary. `shown_token_ids` are special tokens that stay in the text when others are
    skipped. `guide` is TensorRT-LLM's `guided_decoding_guide`: a grammar in EBNF that has been compiled.
    """

    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    top_k: int | None = None
    min_p: float | None = None
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
    top_logprobs: int | None = None
    prompt_logprobs: int | None = None
    logit_bias: Sequence[float] | None = None
    guide: str | None = None

    @property
    def has_alternatives(self) -> bool:
        """Whether more is asked for than the log probabilities of chosen tokens."""
        return self.top_logprobs is not None or self.prompt_logprobs is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingDefaults:
    """What holds for a request that does not say, in the ranges of SamplingParams. None: the server's own default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None

    def honoured_by(self, engine: "Engine") -> "SamplingDefaults":
        """Without those that the engine has no input for. Every engine has temperature and top_p."""
        missing = {"top_k", "min_p", "repetition_penalty"} - engine.honours
        return replace(self, **dict.fromkeys(missing))

    def __str__(self) -> str:
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return ", ".join(f"{name} {value}" for name, value in given.items() if value is not None) or "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndTokens:
    """The ids that end an answer: the engine stops at `end_id`, the frontend at `other_end_ids`."""

    end_id: int
    pad_id: int
    other_end_ids: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """All that an engine needs. Prompt and `sampling_params.max_tokens` together fit its context."""

    prompt_token_ids: Sequence[int]
    sampling_params: SamplingParams
    end_tokens: EndTokens


class LogProbs(NamedTuple):
    """Of N consecutive tokens: natural log probabilities before temperature and penalties, and ranks from 1.

    `top_token_ids` and `top_log_probs` have the same number of most likely tokens for each of them, all in one list.
    """

    log_probs: Sequence[float]
    ranks: Sequence[int]
    top_token_ids: Sequence[int]
    top_log_probs: Sequence[float]


class TokenChunk(NamedTuple):
    """Tokens that an engine has generated since its last chunk: none, one or several; never the end token.

    `log_probs` has one natural logarithm for each of them, or is empty if they were not asked for. `top` has them with
    ranks and alternatives, and `prompt` those of the next tokens of the prompt, whose first token has none; None if
    this chunk has none. `num_cached_tokens` is as in Usage. A tuple, because one is made for every token of every
    stream, and a frozen dataclass takes three times as long.
    """

    token_ids: Sequence[int]
    log_probs: Sequence[float] = ()
    num_cached_tokens: int | None = None
    top: LogProbs | None = None
    prompt: LogProbs | None = None


class Token(NamedTuple):
    """One token of an answer or a prompt: the bytes that it adds, and its log probability, None if not asked for.

    `rank` is its place among all tokens by probability, from 1. `top` are the most likely tokens in its place.
    """

    token_id: int
    text: bytes
    log_prob: float | None
    rank: int | None = None
    top: "Sequence[Token]" = ()


class Delta(NamedTuple):
    """The next part of an answer: text, and the tokens that begin in it if the request asks for log probabilities.

    `num_completion_tokens` counts all tokens so far, including those whose text is held back. The first part has the
    tokens of the prompt too, if the request asks for their log probabilities.
    """

    text: str
    tokens: Sequence[Token] = ()
    num_completion_tokens: int = 0
    prompt: Sequence[Token] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts of one request. The end token is neither delivered nor counted.

    `num_cached_tokens` of the prompt were in the engine's KV cache; None if not asked for.
    """

    num_prompt_tokens: int
    num_completion_tokens: int
    num_cached_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Why a generation ended; `stop_reason` is the stop string or the id of `stop_token_ids` that ended it."""

    finish_reason: FinishReason
    stop_reason: str | int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one answer ended, and its usage."""

    ending: Ending
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What the loaded engine declares: its limits in requests and tokens, and the names of its inputs.

    `honours` are the fields of SamplingParams that it has an input for. `tokens_per_block` is the block size of its KV
    cache if responses are to report the cached blocks of their prompt, else None. `default_max_tokens` is the limit of
    requests without `max_tokens`; None if their answers may fill the context. Requests for alternatives go to the model
    `log_probs_model`, if it is set: those that run ask for `max_gathered_tokens` at most together.
    """

    max_batch_size: int
    max_seq_len: int
    inputs: frozenset[str]
    honours: frozenset[str]
    tokens_per_block: int | None = None
    default_max_tokens: int | None = None
    log_probs_model: str | None = None
    max_gathered_tokens: int = 0


def finish_reason(*, stop_matched: bool, num_completion_tokens: int, max_tokens: int) -> FinishReason:
    """Why generation ended, which engines do not report.

    `max_tokens` is the limit that the engine enforced. The end token is never delivered, so fewer tokens than that,
    without a stop string or end token that the frontend found, mean that the model ended its answer.
    """
    if stop_matched:
        return "stop"
    return "length" if num_completion_tokens >= max_tokens else "stop"
