"""OpenAI's responses: one JSON body, or the events of a stream.

The JSON body is built by the same code that writes the events, so the two cannot differ.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from frontend.errors import FrontendError
from frontend.generation import Delta, Outcome, Token, Usage
from frontend.openai.job import Answer
from frontend.text.tool_parser import ToolCallParser
from frontend.text.tools import TextDelta, ToolCallStart, ToolEvent

from .items import Events, FunctionCallEvents, MessageEvents
from .types import IncompleteDetails, InputTokensDetails, ItemStatus, ResponseError, ResponseUsage


class ResponsesWriter:
    """`response` is the ResponseObject before there is output; `parser` is None if the answer cannot call functions.
    `namespaces` has the namespace of each function that has one.

    Items are written one after the other: text starts a message, and each call is an item. The next item finishes the
    one before. An answer without text and calls is an empty message. Log probabilities belong to text, so a job with
    them has no parser.
    """

    def __init__(
        self, response: Mapping[str, Any], parser: ToolCallParser | None, namespaces: Mapping[str, str] | None = None
    ) -> None:
        self._response = response
        self._parser = parser
        self._namespaces = namespaces or {}
        self._events = Events()
        self._finished_items: list[dict[str, Any]] = []
        self._item: MessageEvents | FunctionCallEvents | None = None
        self.finished: Mapping[str, Any] = {}
        """The response when it is complete, empty before."""

    def complete(self, answers: Sequence[Answer]) -> bytes:
        """The reply as one JSON body."""
        [answer] = answers
        self.delta(0, Delta(answer.text, answer.tokens))
        self.finish(0, answer.outcome)
        return orjson.dumps(self._to_finished(answer.outcome))

    def start(self) -> bytes:
        """The response is created and in progress."""
        response = self._snapshot()
        created = self._events.write("response.created", response=response)
        return created + self._events.write("response.in_progress", response=response)

    def delta(self, index: int, delta: Delta) -> bytes:
        """More text, or more of calls."""
        if self._parser is not None:
            return self._write_events(self._parser.feed(delta.text))
        return self._write_text(delta.text, delta.tokens) if delta.text or delta.tokens else b""

    def finish(self, index: int, outcome: Outcome) -> bytes:
        """Text that was held back, and the end of the last item."""
        is_cut = outcome.ending.finish_reason == "length"
        body = b"" if self._parser is None else self._write_events(self._parser.finish(cut=is_cut))
        if self._item is None:
            body = self._start_message()
        return body + self._finish_item(self._last_status(outcome))

    def end(self, outcomes: Sequence[Outcome]) -> bytes:
        """The complete response."""
        [outcome] = outcomes
        finished = self._to_finished(outcome)
        return self._events.write(f"response.{finished['status']}", response=finished)

    def error(self, error: FrontendError) -> bytes:
        """The response with its output so far, failed; nothing follows."""
        if self._item is not None:
            self._finished_items.append(self._item.body("incomplete").model_dump())
        failure = ResponseError(message=error.message).model_dump()
        return self._events.write("response.failed", response=self._snapshot(status="failed", error=failure))

    # ---- items -----------------------------------------------------------------------------------------------------

    def _write_events(self, events: Sequence[ToolEvent]) -> bytes:
        return b"".join([self._write_event(event) for event in events])

    def _write_event(self, event: ToolEvent) -> bytes:
        if isinstance(event, TextDelta):
            return self._write_text(event.text)
        if isinstance(event, ToolCallStart):
            item = FunctionCallEvents(
                self._new_id("fc"), self._next_index, self._events, event, self._namespaces.get(event.name)
            )
            return self._start_item(item)
        assert isinstance(self._item, FunctionCallEvents)  # a parser opens a call before it returns arguments of it
        return self._item.delta(event.arguments)

    def _write_text(self, text: str, tokens: Sequence[Token] = ()) -> bytes:
        started = b"" if isinstance(self._item, MessageEvents) else self._start_message()
        assert isinstance(self._item, MessageEvents)
        return started + self._item.delta(text, tokens)

    def _start_message(self) -> bytes:
        return self._start_item(MessageEvents(self._new_id("msg"), self._next_index, self._events))

    def _start_item(self, item: MessageEvents | FunctionCallEvents) -> bytes:
        ended = self._finish_item("completed")
        self._item = item
        return ended + item.start()

    def _finish_item(self, status: ItemStatus) -> bytes:
        if self._item is None:
            return b""
        item, self._item = self._item, None
        self._finished_items.append(item.body(status).model_dump())
        return item.finish(status)

    def _new_id(self, prefix: str) -> str:
        """The response's own number, followed by the item's index."""
        return f"{prefix}_{self._response['id'].removeprefix('resp_')}{self._next_index}"

    @property
    def _next_index(self) -> int:
        """The index of the next item."""
        return len(self._finished_items) + (self._item is not None)

    def _last_status(self, outcome: Outcome) -> ItemStatus:
        """The status of the last item. A call that was cut is incomplete, by `max_tokens` or by a stop string."""
        if isinstance(self._item, FunctionCallEvents) and self._parser is not None:
            return "completed" if self._parser.all_calls_complete else "incomplete"
        return "incomplete" if outcome.ending.finish_reason == "length" else "completed"

    # ---- the response ----------------------------------------------------------------------------------------------

    def _to_finished(self, outcome: Outcome) -> Mapping[str, Any]:
        usage = to_usage(outcome.usage).model_dump()
        if outcome.ending.finish_reason == "length":
            details = IncompleteDetails().model_dump()
            self.finished = self._snapshot(status="incomplete", incomplete_details=details, usage=usage)
        else:
            self.finished = self._snapshot(status="completed", usage=usage)
        return self.finished

    def _snapshot(self, **changes: Any) -> dict[str, Any]:
        """The response with the items that are finished."""
        return {**self._response, "output": self._finished_items, **changes}


def to_usage(usage: Usage) -> ResponseUsage:
    """The usage object of a response."""
    return ResponseUsage(
        input_tokens=usage.num_prompt_tokens,
        input_tokens_details=InputTokensDetails(cached_tokens=usage.num_cached_tokens or 0),
        output_tokens=usage.num_completion_tokens,
        total_tokens=usage.num_prompt_tokens + usage.num_completion_tokens,
    )
