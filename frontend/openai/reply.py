"""What the writers of replies share: id, time and model, server-sent events, chunks, usage, log probabilities."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from frontend.errors import FrontendError
from frontend.generation import Outcome, Token, Usage

from .errors import to_error_body
from .fields import PromptTokensDetails, StreamOptions, TokenLogprob, TopLogprob, UsageBody

_DONE = b"data: [DONE]\n\n"
"""OpenAI's last event of a stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The fields that all JSON objects of one reply have. `created` is in seconds since 1970.

    `system_fingerprint` is None unless the operator turned it on.
    """

    id: str
    created: int
    model: str
    system_fingerprint: str | None = None

    @property
    def extras(self) -> dict[str, str]:
        """Optional fields, which come after those that every reply has."""
        return {} if self.system_fingerprint is None else {"system_fingerprint": self.system_fingerprint}


def _sse(data: bytes) -> bytes:
    """One server-sent event."""
    return b"data: %b\n\n" % data


def error_event(error: FrontendError) -> bytes:
    """The last event of a stream that failed; OpenAI's clients raise it as an exception."""
    return _sse(orjson.dumps(to_error_body(error)))


class Chunks:
    """The chunks of a stream in OpenAI's shape. The fields that all chunks share are rendered once.

    `head` and `tail` are the bytes before and after the choice of a chunk without extra fields.
    """

    def __init__(self, reply: Reply, object_name: str, options: StreamOptions) -> None:
        shared = {"id": reply.id, "object": object_name, "created": reply.created, "model": reply.model}
        self._shared = orjson.dumps(shared | reply.extras)[:-1]
        self._options = options
        self.head = self._shared + b',"choices":['
        self.tail = b'],"usage":null}' if options.include_usage else b"]}"

    def chunk(self, choice: Mapping[str, Any], usage: Usage, more: Mapping[str, Any] | None = None) -> bytes:
        """One event. `usage` is written with `usage_in_chunks`; `more` are fields before the choices."""
        head = self.head if not more else self._shared + b"," + orjson.dumps(more)[1:-1] + b',"choices":['
        tail = self._usage_tail(to_usage_body(usage)) if self._options.usage_in_chunks else self.tail
        return _sse(head + orjson.dumps(choice) + tail)

    def end(self, outcomes: Sequence[Outcome], num_prompts: int = 1) -> bytes:
        """The chunk without choices that `include_usage` asks for, and `[DONE]`."""
        if not self._options.include_usage:
            return _DONE
        return _sse(self.head + self._usage_tail(usage_body(outcomes, num_prompts))) + _DONE

    def _usage_tail(self, usage: UsageBody) -> bytes:
        return b'],"usage":' + usage.model_dump_json().encode() + b"}"


def usage_body(outcomes: Sequence[Outcome], num_prompts: int = 1) -> UsageBody:
    """Token counts of a complete reply. A prompt with several answers counts once, as in vLLM."""
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
    """OpenAI's usage object; cached tokens only where the engine reports them."""
    cached = usage.num_cached_tokens
    return UsageBody(
        prompt_tokens=usage.num_prompt_tokens,
        total_tokens=usage.num_prompt_tokens + usage.num_completion_tokens,
        completion_tokens=usage.num_completion_tokens,
        prompt_tokens_details=None if cached is None else PromptTokensDetails(cached_tokens=cached),
    )


def to_logprobs(tokens: Sequence[Token], *, as_ids: bool = False) -> list[TokenLogprob]:
    """OpenAI's objects. A token that holds part of a character has U+FFFD in `token` and its real bytes in `bytes`."""
    return [
        TokenLogprob(
            name_of(token, as_id=as_ids),
            token.log_prob or 0.0,
            list(token.text),
            [TopLogprob(name_of(other, as_id=as_ids), other.log_prob or 0.0, list(other.text)) for other in token.top],
        )
        for token in tokens
    ]


def to_prompt_logprobs(tokens: Sequence[Token], num_top: int) -> list[dict[str, dict[str, Any]] | None]:
    """vLLM's objects: for each token of the prompt its own entry and those of the `num_top` most likely, by token id.

    The first token has no log probability. Ranks count from 1.
    """
    return [None if token.log_prob is None else _entries(token, num_top) for token in tokens]


def _entries(token: Token, num_top: int) -> dict[str, dict[str, Any]]:
    own = {str(token.token_id): _entry(token, token.rank)}
    return own | {str(other.token_id): _entry(other, rank) for rank, other in enumerate(token.top[:num_top], 1)}


def _entry(token: Token, rank: int | None) -> dict[str, Any]:
    return {"logprob": token.log_prob, "rank": rank, "decoded_token": name_of(token, as_id=False)}


def name_of(token: Token, *, as_id: bool) -> str:
    """A token in log probabilities: its text, or with vLLM's `return_tokens_as_token_ids` its id."""
    return f"token_id:{token.token_id}" if as_id else token.text.decode(errors="replace")
