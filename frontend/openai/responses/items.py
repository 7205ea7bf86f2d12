"""The output items of a response, written as events while they grow: a message, or the call of a function.

When an item starts and finishes is decided in response.py.
"""

from collections.abc import Sequence
from typing import Any

import orjson

from frontend.generation import Token
from frontend.openai.fields import TokenLogprob
from frontend.openai.reply import to_logprobs
from frontend.text.tools import ToolCallStart

from .types import ItemStatus, OutputFunctionCall, OutputMessage, OutputText


class Events:
    """Writes server-sent events. Each has its name twice, as `event` and as `type`, and a number that counts from 0."""

    def __init__(self) -> None:
        self._next_number = 0

    def number(self) -> int:
        """The number of the next event."""
        number = self._next_number
        self._next_number += 1
        return number

    def write(self, event: str, **fields: Any) -> bytes:
        """One event."""
        data = orjson.dumps({"type": event, "sequence_number": self.number(), **fields})
        return b"event: %b\ndata: %b\n\n" % (event.encode(), data)


class MessageEvents:
    """A message of one text. The bytes that its deltas share are rendered once."""

    def __init__(self, item_id: str, output_index: int, events: Events) -> None:
        self._id = item_id
        self._events = events
        self._of_item = {"output_index": output_index}
        self._of_part = {"item_id": item_id, "output_index": output_index, "content_index": 0}
        self._texts: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        name = b"response.output_text.delta"
        self._before_number = b'event: %b\ndata: {"type":"%b","sequence_number":' % (name, name)
        self._before_text = b"," + orjson.dumps(self._of_part)[1:-1] + b',"delta":'

    def start(self) -> bytes:
        """The item is added, then its one part."""
        item = OutputMessage(id=self._id, status="in_progress", content=[]).model_dump()
        return self._events.write("response.output_item.added", **self._of_item, item=item) + self._events.write(
            "response.content_part.added", **self._of_part, part=OutputText(text="").model_dump()
        )

    def delta(self, text: str, tokens: Sequence[Token]) -> bytes:
        """More text, with the log probabilities of `tokens`."""
        logprobs = to_logprobs(tokens)
        self._texts.append(text)
        self._logprobs += logprobs
        logprobs_json = orjson.dumps(logprobs) if logprobs else b"[]"
        number = b"%d" % self._events.number()
        head = self._before_number + number + self._before_text
        return head + orjson.dumps(text) + b',"logprobs":' + logprobs_json + b"}\n\n"

    def finish(self, status: ItemStatus) -> bytes:
        """The complete text, part and item."""
        part = self._text()
        return b"".join(
            [
                self._events.write(
                    "response.output_text.done", **self._of_part, text=part.text, logprobs=part.logprobs
                ),
                self._events.write("response.content_part.done", **self._of_part, part=part.model_dump()),
                self._events.write("response.output_item.done", **self._of_item, item=self.body(status).model_dump()),
            ]
        )

    def body(self, status: ItemStatus) -> OutputMessage:
        """The item so far."""
        return OutputMessage(id=self._id, status=status, content=[self._text()])

    def _text(self) -> OutputText:
        return OutputText(text="".join(self._texts), logprobs=self._logprobs)


class FunctionCallEvents:
    """The call of a function."""

    def __init__(
        self, item_id: str, output_index: int, events: Events, opened: ToolCallStart, namespace: str | None
    ) -> None:
        self._id = item_id
        self._events = events
        self._opened = opened
        self._namespace = namespace
        self._of_item = {"output_index": output_index}
        self._of_part = {"item_id": item_id, "output_index": output_index}
        self._arguments: list[str] = []

    def start(self) -> bytes:
        """The item is added, without arguments."""
        item = self.body("in_progress").model_dump()
        return self._events.write("response.output_item.added", **self._of_item, item=item)

    def delta(self, arguments: str) -> bytes:
        """More of the arguments."""
        self._arguments.append(arguments)
        return self._events.write("response.function_call_arguments.delta", **self._of_part, delta=arguments)

    def finish(self, status: ItemStatus) -> bytes:
        """The complete arguments and item."""
        item = self.body(status).model_dump()
        arguments = item["arguments"]
        return self._events.write(
            "response.function_call_arguments.done", **self._of_part, name=self._opened.name, arguments=arguments
        ) + self._events.write("response.output_item.done", **self._of_item, item=item)

    def body(self, status: ItemStatus) -> OutputFunctionCall:
        """The item so far."""
        return OutputFunctionCall(
            id=self._id,
            status=status,
            arguments="".join(self._arguments),
            call_id=self._opened.id,
            name=self._opened.name,
            namespace=self._namespace,
        )
