"""OpenAI's chat completions, both ways: a body to a generation request, and text to an answer or to stream chunks.

Pure. Refuses to know Triton and HTTP: what comes out is ours on one side and bytes of JSON on the other.
"""

from dataclasses import dataclass
from typing import Any

import orjson

from .errors import InvalidRequest, UnsupportedParameter
from .generation import Ending, EndTokens, GenerationRequest, Usage
from .messages import Message, join_texts
from .parameters import check_supported, to_sampling_params
from .protocol import (
    AssistantMessage,
    ChatChoice,
    ChatCompletion,
    ChatCompletionRequest,
    ChatMessage,
    UsageBody,
)
from .template import ChatTemplate
from .tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What every part of one answer repeats. `created` is in seconds since 1970."""

    id: str
    created: int
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatModel:
    """What turns a conversation into tokens, and the limit that these must keep."""

    template: ChatTemplate
    tokenizer: Tokenizer
    end_tokens: EndTokens
    max_seq_len: int


def to_generation_request(body: ChatCompletionRequest, model: ChatModel, *, random_seed: int) -> GenerationRequest:
    """Check a body and put it in our words. Raises InvalidRequest with the field that is to blame."""
    check_supported(body)
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest("`stream_options` needs `stream` to be true.", param="stream_options")
    messages = [_to_message(message, model.tokenizer) for message in body.messages]
    prompt_token_ids = model.tokenizer.encode(model.template.render(messages))
    sampling_params = to_sampling_params(
        body,
        max_tokens=_max_tokens(body),
        num_prompt_tokens=len(prompt_token_ids),
        max_seq_len=model.max_seq_len,
        random_seed=random_seed,
    )
    return GenerationRequest(
        prompt_token_ids=prompt_token_ids, sampling_params=sampling_params, end_tokens=model.end_tokens
    )


def _to_message(message: ChatMessage, tokenizer: Tokenizer) -> Message:
    text = join_texts(part.text for part in message.content)
    return Message("system" if message.role == "developer" else message.role, tokenizer.shield(text))


def _max_tokens(body: ChatCompletionRequest) -> int | None:
    """`max_completion_tokens` is OpenAI's newer name for `max_tokens`."""
    old, new = body.max_tokens, body.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise UnsupportedParameter(
            "`max_tokens` and `max_completion_tokens` are two names for one thing; send one.", param="max_tokens"
        )
    return old if new is None else new


def to_completion(reply: Reply, text: str, ending: Ending, usage: Usage) -> bytes:
    """The whole answer as JSON."""
    choice = ChatChoice(
        index=0,
        message=AssistantMessage(content=text),
        finish_reason=ending.finish_reason,
        stop_reason=ending.stop_reason,
    )
    completion = ChatCompletion(
        id=reply.id, created=reply.created, model=reply.model, choices=[choice], usage=_usage_body(usage)
    )
    return completion.model_dump_json().encode()


class ChatChunks:
    """The chunks of one stream as JSON, in OpenAI's current shape.

    What all chunks share is rendered once: a chunk costs little more than the escaping of its text.
    """

    def __init__(self, reply: Reply, *, include_usage: bool) -> None:
        shared = {"id": reply.id, "object": "chat.completion.chunk", "created": reply.created, "model": reply.model}
        self._head = orjson.dumps(shared)[:-1] + b',"choices":['
        self._tail = b'],"usage":null}' if include_usage else b"]}"
        self._before_text = self._head + b'{"index":0,"delta":{"content":'
        self._after_text = b'},"logprobs":null,"finish_reason":null}' + self._tail

    def opening(self) -> bytes:
        """Who speaks; there is no text yet."""
        return self._chunk({"role": "assistant", "content": ""})

    def delta(self, text: str) -> bytes:
        """More text."""
        return self._before_text + orjson.dumps(text) + self._after_text

    def closing(self, ending: Ending) -> bytes:
        """Why it is over; `stop_reason` only where there is one, as vLLM does."""
        stop_reason = {} if ending.stop_reason is None else {"stop_reason": ending.stop_reason}
        return self._chunk({}, finish_reason=ending.finish_reason, **stop_reason)

    def usage(self, usage: Usage) -> bytes:
        """The chunk without choices that `include_usage` asks for."""
        return self._head + b'],"usage":' + _usage_body(usage).model_dump_json().encode() + b"}"

    def _chunk(self, delta: dict[str, str], *, finish_reason: str | None = None, **more: str) -> bytes:
        choice: dict[str, Any] = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason, **more}
        return self._head + orjson.dumps(choice) + self._tail


def _usage_body(usage: Usage) -> UsageBody:
    return UsageBody(
        prompt_tokens=usage.num_prompt_tokens,
        total_tokens=usage.num_prompt_tokens + usage.num_completion_tokens,
        completion_tokens=usage.num_completion_tokens,
    )
