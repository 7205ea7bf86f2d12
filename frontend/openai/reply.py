"""What an endpoint gives the rim to answer with: generations to run, and how to write what comes of them.

Refuses to run anything. A format is made for one answer and may remember what it has written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from frontend.errors import FrontendError, to_body
from frontend.generation import Delta, GenerationRequest, Outcome, Token, Usage

from .fields import PromptTokensDetails, StreamOptions, TokenLogprob, UsageBody

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What every part of one answer repeats. `created` is in seconds since 1970.

    `system_fingerprint` is None where the operator does not want it told.
    """

    id: str
    created: int
    model: str
    system_fingerprint: str | None = None

    @property
    def extras(self) -> dict[str, str]:
        """What goes behind the fields that every answer has."""
        return {} if self.system_fingerprint is None else {"system_fingerprint": self.system_fingerprint}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One generation that is over."""

    text: str
    tokens: Sequence[Token]
    outcome: Outcome


class ReplyFormat(Protocol):
    """An endpoint's way to write answers. `index` is the place of a generation among those of the job."""

    def whole(self, answers: Sequence[Answer]) -> bytes:
        """The JSON body of an answer that is not streamed."""

    def opening(self) -> bytes:
        """The events that begin a stream; there is no text yet."""

    def delta(self, index: int, delta: Delta) -> bytes:
        """The events for more text; none if it is held back."""

    def closing(self, index: int, outcome: Outcome) -> bytes:
        """The events that end one generation."""

    def end(self, outcomes: Sequence[Outcome]) -> bytes:
        """The events that end the stream."""

    def error(self, error: FrontendError) -> bytes:
        """The event that ends a stream that failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The generations of one answer, and its format. `id` is for the log.

    `with_tokens`: the format wants to see the tokens beside the text.
    """

    id: str
    requests: Sequence[GenerationRequest]
    format: ReplyFormat
    stream: bool
    with_tokens: bool = False


def sse(data: bytes) -> bytes:
    """One server-sent event."""
    return b"data: %b\n\n" % data


def error_event(error: FrontendError) -> bytes:
    """A stream that failed ends with this: clients raise it."""
    return sse(orjson.dumps(to_body(error)))


class Chunks:
    """The chunks of a stream in OpenAI's shape: what all share, rendered once, around one choice.

    `head` and `tail` are what stands before and behind the choice where nothing is special.
    """

    def __init__(self, reply: Reply, object_name: str, options: StreamOptions) -> None:
        shared = {"id": reply.id, "object": object_name, "created": reply.created, "model": reply.model}
        self._shared = orjson.dumps(shared | reply.extras)[:-1]
        self._options = options
        self.head = self._shared + b',"choices":['
        self.tail = b'],"usage":null}' if options.include_usage else b"]}"

    def chunk(self, choice: Mapping[str, Any], usage: Usage, more: Mapping[str, Any] | None = None) -> bytes:
        """One event. `usage` is told with `continuous_usage_stats`; `more` stands in front of the choices."""
        head = self.head if not more else self._shared + b"," + orjson.dumps(more)[1:-1] + b',"choices":['
        tail = self._usage_tail(to_usage_body(usage)) if self._options.continuous_usage_stats else self.tail
        return sse(head + orjson.dumps(choice) + tail)

    def end(self, outcomes: Sequence[Outcome], num_prompts: int = 1) -> bytes:
        """The chunk without choices that `include_usage` asks for, and the end mark."""
        if not self._options.include_usage:
            return DONE
        return sse(self.head + self._usage_tail(usage_body(outcomes, num_prompts))) + DONE

    def _usage_tail(self, usage: UsageBody) -> bytes:
        return b'],"usage":' + usage.model_dump_json().encode() + b"}"


def usage_body(outcomes: Sequence[Outcome], num_prompts: int = 1) -> UsageBody:
    """All tokens of an answer. The answers to one prompt count it once, as vLLM does."""
    per_prompt = max(1, len(outcomes) // num_prompts)
    of_prompts = [outcome.usage for outcome in outcomes[::per_prompt]]
    cached = [usage.num_cached_tokens for usage in of_prompts if usage.num_cached_tokens is not None]
    return to_usage_body(
        Usage(
            num_prompt_tokens=sum(usage.num_prompt_tokens for usage in of_prompts),
            num_completion_tokens=sum(outcome.usage.num_completion_tokens for outcome in outcomes),
            num_cached_tokens=sum(cached) if cached else None,
        )
    )


def to_usage_body(usage: Usage) -> UsageBody:
    """OpenAI's three numbers, and the fourth where it is known."""
    cached = usage.num_cached_tokens
    return UsageBody(
        prompt_tokens=usage.num_prompt_tokens,
        total_tokens=usage.num_prompt_tokens + usage.num_completion_tokens,
        completion_tokens=usage.num_completion_tokens,
        prompt_tokens_details=None if cached is None else PromptTokensDetails(cached_tokens=cached),
    )


def to_logprobs(tokens: Sequence[Token]) -> list[TokenLogprob]:
    """OpenAI's shape. A token that is part of a character has U+FFFD in its text, and the truth in its bytes."""
    return [
        TokenLogprob(token=token.text.decode(errors="replace"), logprob=token.log_prob or 0.0, bytes=list(token.text))
        for token in tokens
    ]
