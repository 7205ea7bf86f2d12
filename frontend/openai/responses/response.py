"""OpenAI's responses: one JSON body, or the events of a stream.

A whole answer is what its events add up to, so the two cannot differ.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from frontend.errors import FrontendError
from frontend.generation import Delta, Outcome, Token, Usage
from frontend.openai.reply import Answer
from frontend.text.tool_parser import ToolCallParser
from frontend.text.tools import TextDelta, ToolCallOpened, ToolEvent

from .items import Events, FunctionCall, Message
from .types import IncompleteDetails, InputTokensDetails, ItemStatus, ResponseError, ResponseUsage


class ResponsesFormat:
    """`response` is the answer, a ResponseObject, before it begins; `parser` is there if it may call functions.

    Items are written one after the other: a message when there is text, a call when there is one, and what follows
    ends what was before. An answer of neither is a message without text. Tokens are told of beside text, so a job that
    wants them has no parser: the tokens of calls have no place in a response.
    """

    def __init__(self, response: Mapping[str, Any], parser: ToolCallParser | None) -> None:
        self._response = response
        self._parser = parser
        self._events = Events()
        self._ended: list[dict[str, Any]] = []
        self._item: Message | FunctionCall | None = None

    def whole(self, answers: Sequence[Answer]) -> bytes:
        """The whole answer as JSON."""
        [answer] = answers
        self.delta(0, Delta(answer.text, answer.tokens))
        self.closing(0, answer.outcome)
        return orjson.dumps(self._finished(answer.outcome))

    def opening(self) -> bytes:
        """That there is a response, and that it is being worked on."""
        response = self._snapshot()
        created = self._events.write("response.created", response=response)
        return created + self._events.write("response.in_progress", response=response)

    def delta(self, index: int, delta: Delta) -> bytes:
        """More text, or more of calls."""
        if self._parser is not None:
            return self._write(self._parser.feed(delta.text))
        return self._say(delta.text, delta.tokens) if delta.text or delta.tokens else b""

    def closing(self, index: int, outcome: Outcome) -> bytes:
        """What was held back, and the end of the last item."""
        body = b"" if self._parser is None else self._write(self._parser.finish())
        if self._item is None:
            body = self._begin_message()
        return body + self._end_item(self._last_status(outcome))

    def end(self, outcomes: Sequence[Outcome]) -> bytes:
        """The whole answer."""
        [outcome] = outcomes
        finished = self._finished(outcome)
        return self._events.write(f"response.{finished['status']}", response=finished)

    def error(self, error: FrontendError) -> bytes:
        """The answer as far as it got; nothing follows."""
        if self._item is not None:
            self._ended.append(self._item.body("incomplete").model_dump())
        failure = ResponseError(message=error.message).model_dump()
        return self._events.write("response.failed", response=self._snapshot(status="failed", error=failure))

    # ---- items -----------------------------------------------------------------------------------------------------

    def _write(self, events: Sequence[ToolEvent]) -> bytes:
        return b"".join([self._write_one(event) for event in events])

    def _write_one(self, event: ToolEvent) -> bytes:
        if isinstance(event, TextDelta):
            return self._say(event.text)
        if isinstance(event, ToolCallOpened):
            return self._begin(FunctionCall(self._new_id("fc"), self._next_index, self._events, event))
        assert isinstance(self._item, FunctionCall)  # parsers open calls before they tell of arguments
        return self._item.delta(event.arguments)

    def _say(self, text: str, tokens: Sequence[Token] = ()) -> bytes:
        begun = b"" if isinstance(self._item, Message) else self._begin_message()
        assert isinstance(self._item, Message)
        return begun + self._item.delta(text, tokens)

    def _begin_message(self) -> bytes:
        return self._begin(Message(self._new_id("msg"), self._next_index, self._events))

    def _begin(self, item: Message | FunctionCall) -> bytes:
        ended = self._end_item("completed")
        self._item = item
        return ended + item.begin()

    def _end_item(self, status: ItemStatus) -> bytes:
        if self._item is None:
            return b""
        item, self._item = self._item, None
        self._ended.append(item.body(status).model_dump())
        return item.end(status)

    def _new_id(self, prefix: str) -> str:
        """The response's own number, and the item's place behind it."""
        return f"{prefix}_{self._response['id'].removeprefix('resp_')}{self._next_index}"

    @property
    def _next_index(self) -> int:
        """The place of the item behind the one that is being written."""
        return len(self._ended) + (self._item is not None)

    def _last_status(self, outcome: Outcome) -> ItemStatus:
        """A call that was cut is incomplete, whatever cut it."""
        if isinstance(self._item, FunctionCall) and self._parser is not None:
            return "completed" if self._parser.all_calls_complete else "incomplete"
        return "incomplete" if outcome.ending.finish_reason == "length" else "completed"

    # ---- the response ----------------------------------------------------------------------------------------------

    def _finished(self, outcome: Outcome) -> dict[str, Any]:
        usage = to_usage(outcome.usage).model_dump()
        if outcome.ending.finish_reason == "length":
            details = IncompleteDetails().model_dump()
            return self._snapshot(status="incomplete", incomplete_details=details, usage=usage)
        return self._snapshot(status="completed", usage=usage)

    def _snapshot(self, **changes: Any) -> dict[str, Any]:
        """The response by now."""
        return {**self._response, "output": self._ended, **changes}


def to_usage(usage: Usage) -> ResponseUsage:
    """Responses' words for tokens."""
    return ResponseUsage(
        input_tokens=usage.num_prompt_tokens,
        input_tokens_details=InputTokensDetails(cached_tokens=usage.num_cached_tokens or 0),
        output_tokens=usage.num_completion_tokens,
        total_tokens=usage.num_prompt_tokens + usage.num_completion_tokens,
    )
