"""Anthropic's replies: one JSON body, or the events of a stream."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import orjson
from pydantic_core import from_json

from frontend.errors import FrontendError
from frontend.generation import Delta, Ending, Outcome, Usage
from frontend.openai.job import Answer
from frontend.openai.reply import Reply
from frontend.text.tool_parser import ToolCallParser
from frontend.text.tools import TextDelta, ToolCallStart, ToolEvent

from .errors import to_error_body
from .types import MessageUsage, StopReason


class MessagesWriter:
    """Writes a `message`. `parser` is None if the answer cannot call tools.

    Its content is blocks, one after the other: text starts one, and each call is one. An answer without text and calls
    has none. `at_limit` is the reason of an answer that as many tokens ended as it could have.
    """

    def __init__(
        self,
        reply: Reply,
        *,
        num_prompt_tokens: int,
        parser: ToolCallParser | None = None,
        at_limit: Literal["max_tokens", "model_context_window_exceeded"] = "max_tokens",
    ) -> None:
        self._reply = reply
        self._num_prompt_tokens = num_prompt_tokens
        self._parser = parser
        self._at_limit = at_limit
        self._num_blocks = 0
        self._open: Literal["text", "tool_use"] | None = None
        self._before_text = b""
        """The bytes that the deltas of the open block share, up to their text."""

    # ---- one JSON body -----------------------------------------------------------------------------------------------

    def complete(self, answers: Sequence[Answer]) -> bytes:
        """The reply as one JSON body."""
        [answer] = answers
        outcome = answer.outcome
        content = _to_content([*self._events_of(answer.text), *self._held_events(outcome)])
        called = self._has_complete_calls and any(block["type"] == "tool_use" for block in content)
        return orjson.dumps(
            self._message(content, to_usage(outcome.usage)) | self._reason(outcome.ending, called=called)
        )

    # ---- stream ----------------------------------------------------------------------------------------------------

    def start(self) -> bytes:
        """The message without content. What of its prompt was cached is known at the end."""
        usage = Usage(num_prompt_tokens=self._num_prompt_tokens, num_completion_tokens=0)
        return _event("message_start", message=self._message([], to_usage(usage)))

    def delta(self, index: int, delta: Delta) -> bytes:
        """More text, or more of calls."""
        return b"".join([self._write(event) for event in self._events_of(delta.text)])

    def finish(self, index: int, outcome: Outcome) -> bytes:
        """Text that was held back, the end of the last block, the reason and the usage."""
        held = b"".join([self._write(event) for event in self._held_events(outcome)])
        reason = self._reason(outcome.ending, called=self._has_complete_calls)
        return held + self._stop_block() + _event("message_delta", delta=reason, usage=to_usage(outcome.usage))

    def end(self, outcomes: Sequence[Outcome]) -> bytes:
        """The last event."""
        return _event("message_stop")

    def error(self, error: FrontendError) -> bytes:
        """Anthropic's error event; nothing follows."""
        return b"event: error\ndata: %b\n\n" % orjson.dumps(to_error_body(error))

    def _write(self, event: ToolEvent) -> bytes:
        if isinstance(event, TextDelta):
            started = b"" if self._open == "text" else self._start_block("text", text="")
            return started + self._before_text + orjson.dumps(event.text) + b"}}\n\n"
        if isinstance(event, ToolCallStart):
            return self._start_block("tool_use", id=event.id, name=event.name, input={})
        return self._before_text + orjson.dumps(event.arguments) + b"}}\n\n"

    def _start_block(self, kind: Literal["text", "tool_use"], **fields: Any) -> bytes:
        """The end of the block before, and the start of the next. The first one is followed by a `ping`."""
        ended = self._stop_block()
        index = self._num_blocks
        self._open = kind
        self._num_blocks += 1
        delta = b'"text_delta","text":' if kind == "text" else b'"input_json_delta","partial_json":'
        self._before_text = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":%b'
            % (index, delta)
        )
        started = _event("content_block_start", index=index, content_block={"type": kind, **fields})
        return ended + started + (b"" if index else _event("ping"))

    def _stop_block(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return _event("content_block_stop", index=self._num_blocks - 1)

    # ---- both --------------------------------------------------------------------------------------------------------

    def _events_of(self, text: str) -> Sequence[ToolEvent]:
        if self._parser is not None:
            return self._parser.feed(text)
        return [TextDelta(text)] if text else []

    def _held_events(self, outcome: Outcome) -> Sequence[ToolEvent]:
        return [] if self._parser is None else self._parser.finish(cut=outcome.ending.finish_reason == "length")

    @property
    def _has_complete_calls(self) -> bool:
        return self._parser is not None and self._parser.all_calls_complete

    def _message(self, content: Sequence[Any], usage: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": self._reply.id,
            "type": "message",
            "role": "assistant",
            "content": content,
            "model": self._reply.model,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }

    def _reason(self, ending: Ending, *, called: bool) -> dict[str, Any]:
        """Why the answer ended. A call that is not complete is no reason: `max_tokens` or a stop string cut it."""
        reason: StopReason = "tool_use" if called else "end_turn"
        sequence = ending.stop_reason if isinstance(ending.stop_reason, str) else None
        if ending.finish_reason == "length":
            reason = self._at_limit
        elif sequence is not None:
            reason = "stop_sequence"
        return {"stop_reason": reason, "stop_sequence": sequence}


def to_usage(usage: Usage) -> dict[str, Any]:
    """Anthropic's usage object. Its input tokens are those that were not cached; nothing is cached at a price."""
    cached = usage.num_cached_tokens
    return MessageUsage(
        input_tokens=usage.num_prompt_tokens - (cached or 0),
        cache_creation_input_tokens=None if cached is None else 0,
        cache_read_input_tokens=cached,
        output_tokens=usage.num_completion_tokens,
    ).model_dump()


def _event(name: str, **fields: Any) -> bytes:
    """One server-sent event, which has its name twice."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps({"type": name, **fields}))


def _to_content(events: Iterable[ToolEvent]) -> list[dict[str, Any]]:
    """The blocks of a complete answer."""
    blocks: list[tuple[ToolCallStart | None, list[str]]] = []
    for event in events:
        if isinstance(event, ToolCallStart):
            blocks.append((event, []))
        elif isinstance(event, TextDelta):
            if not blocks or blocks[-1][0] is not None:
                blocks.append((None, []))
            blocks[-1][1].append(event.text)
        else:
            blocks[-1][1].append(event.arguments)
    return [_to_block(call, "".join(texts)) for call, texts in blocks]


def _to_block(call: ToolCallStart | None, text: str) -> dict[str, Any]:
    """A block. A call whose arguments are no JSON, which only a model without a grammar writes, is text."""
    arguments = None if call is None else _to_input(text)
    if call is None or arguments is None:
        return {"type": "text", "text": text}
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}


def _to_input(arguments: str) -> orjson.Fragment | None:
    """The arguments as they were written; of incomplete ones the values that are complete. None if they are no JSON.

    Anthropic's client makes the same of the deltas of a stream.
    """
    try:
        from_json(arguments, allow_inf_nan=False)
    except ValueError:
        try:
            return orjson.Fragment(json.dumps(from_json(arguments, allow_inf_nan=False, allow_partial=True)))
        except ValueError:
            return None
    return orjson.Fragment(arguments)
