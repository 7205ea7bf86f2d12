"""Parse what the model writes into text and tool calls, as it comes.

Text is passed on at once, except what may become the marker `[TOOL_CALLS]`. A call is passed on once its name is known
and its arguments begin; the arguments follow as they are written. With guided decoding, calls have one fixed form;
without it, any JSON array of objects with a `name` and `arguments` is understood. As what was sent cannot be taken
back, names are not checked, and in the arguments only brackets and quotes are looked at.

No text of the model is lost. What begins like a call and is none (no array, no name, arguments that are not an object,
or the model ends its answer first) is text, marker included; incomplete arguments stay as they are. Only syntax is
dropped: marker, separators, other keys of a call, white space around calls, and a call that `max_tokens` cut before its
arguments.
"""

import json
import re
from collections.abc import Callable

from .json_nesting import Nesting
from .tools import TOOL_CALLS, ArgumentsDelta, TextDelta, ToolCallStart, ToolChoice, ToolEvent

_HEAD = re.compile(r'\{\s*"name"\s*:\s*"([^"\\]+)"\s*,\s*"arguments"\s*:\s*(?=\{)')
_BLANK = re.compile(r"\s*")
_SEPARATOR = re.compile(r"\s*,?\s*")
_COLON = re.compile(r"\s*:\s*")


class ToolCallParser:
    """Turns the text of one answer into events. Joined, they do not depend on how the text is divided among calls.

    `choice` decides how the answer begins, after what `tool_prompt.answer_beginning` wrote: with text (`auto`), with
    the array of calls (`required`), or with the arguments of one call (`named`). `new_id` makes the ids of the calls.
    """

    def __init__(self, choice: ToolChoice, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._named = choice.name
        self._events: list[ToolEvent] = []
        self._num_calls = self._num_complete_calls = 0
        self._held = ""
        """Text that was read and not passed on yet; the parser has read it up to `_at`."""
        self._at = 0
        self._text_has_begun = False
        self._array_has_calls = False
        self._nesting = Nesting()
        begins = {"required": self._array, "named": self._named_arguments}
        self._state: Callable[[], bool] = begins.get(choice.mode, self._text)

    @property
    def all_calls_complete(self) -> bool:
        """True if there is at least one call and none of them is incomplete."""
        return 0 < self._num_calls == self._num_complete_calls

    def feed(self, text: str) -> list[ToolEvent]:
        """The events that are certain with this text."""
        self._held += text
        return self._run()

    def finish(self, *, cut: bool = False) -> list[ToolEvent]:
        """The events of the text held back, once no text will follow. `cut`: by `max_tokens`, so it may be no text."""
        if cut and self._held_begins_a_call:
            self._held = ""
        events: list[ToolEvent] = []
        while self._held and self._state != self._text and not (self._state == self._call and self._array_has_calls):
            self._no_call()
            events += self._run()
        if self._state == self._text and self._held and not (self._num_calls and self._held.isspace()):
            events.append(TextDelta(self._held))
        self._held = ""
        return events

    @property
    def _held_begins_a_call(self) -> bool:
        """Whether the held text is syntax of a call, or of the marker: a `[` alone is text."""
        return self._state != self._text or self._held.strip().startswith(TOOL_CALLS[:2])

    def _run(self) -> list[ToolEvent]:
        """Run the states until one of them needs more text. A state returns whether the next one can run."""
        while self._held and self._state():
            pass
        events, self._events = self._events, []
        return events

    def _text(self) -> bool:
        """State: text before the marker. Only the last `[` may begin it, as the marker has no other."""
        marker = self._held.find(TOOL_CALLS)
        if marker < 0:
            bracket = self._held.rfind(TOOL_CALLS[0])
            may_become_it = bracket >= 0 and TOOL_CALLS.startswith(self._held[bracket:])
            self._pass_on_text(bracket if may_become_it else len(self._held))
            return False
        self._pass_on_text(marker)
        self._at = self._held.index(TOOL_CALLS) + len(TOOL_CALLS)
        return self._go(self._array)

    def _pass_on_text(self, length: int) -> None:
        """Pass on the first `length` characters, but no white space that may still turn out to be around calls."""
        text = self._held[:length]
        if self._text_has_begun or text.strip():
            self._text_has_begun = True
            self._take(length)
            if text:
                self._events.append(TextDelta(text))

    def _array(self) -> bool:
        """State: before the `[` of the array."""
        begin = _skip(_BLANK, self._held, self._at)
        if begin == len(self._held):
            return False
        if self._held[begin] != "[":
            return self._no_call()
        self._at = begin + 1
        self._array_has_calls = False
        return self._go(self._call)

    def _call(self) -> bool:
        """State: before the `{` of the next call, or the end of the array."""
        begin = _skip(_SEPARATOR if self._array_has_calls else _BLANK, self._held, self._at)
        if begin == len(self._held):
            return False
        if self._held[begin] == "]" and self._array_has_calls:
            self._take(begin + 1)
            self._text_has_begun = False
            return self._go(self._text)
        if self._held[begin] != "{":
            return self._no_call()
        if self._array_has_calls:
            self._take(begin)
            begin = 0
        self._at = self._scanned = begin
        self._nesting = Nesting()
        return self._go(self._head)

    def _head(self) -> bool:
        """State: in a call before its arguments. Unless the name comes first, the complete call is read at once."""
        if head := _HEAD.match(self._held, self._at):
            self._open(head[1])
            self._take(head.end())
            return self._go(self._arguments)
        end = self._nesting.end(self._held, self._scanned)
        self._scanned = len(self._held)
        if end is None:
            return False
        call = _read_call(self._held[self._at : end])
        if call is None:
            return self._no_call()
        self._open(call[0])
        self._pass_on_arguments(call[1], complete=True)
        self._take(end)
        return self._go(self._call)

    def _named_arguments(self) -> bool:
        """State: before the `{` of the arguments, when the prompt already has the rest of the call."""
        begin = _skip(_BLANK, self._held, self._at)
        if begin == len(self._held):
            return False
        if self._held[begin] != "{":
            return self._no_call()
        self._open(self._named)
        self._take(begin)
        return self._go(self._arguments)

    def _arguments(self) -> bool:
        """State: in the arguments, up to their last `}`."""
        end = self._nesting.end(self._held)
        length = len(self._held) if end is None else end
        self._pass_on_arguments(self._held[:length], complete=end is not None)
        self._take(length)
        if end is None:
            return False
        self._nesting = Nesting(depth=1)
        return self._go(self._text if self._named else self._tail)

    def _tail(self) -> bool:
        """State: in a call after its arguments."""
        end = self._nesting.end(self._held)
        self._take(len(self._held) if end is None else end)
        return end is not None and self._go(self._call)

    def _no_call(self) -> bool:
        """What looked like the beginning of a call is text, and so is what follows, up to the next marker."""
        self._text_has_begun = True
        self._pass_on_text(max(self._at, 1))
        return self._go(self._text)

    def _open(self, name: str) -> None:
        self._nesting = Nesting()
        self._array_has_calls = True
        self._events.append(ToolCallStart(index=self._num_calls, id=self._new_id(), name=name))
        self._num_calls += 1

    def _pass_on_arguments(self, arguments: str, *, complete: bool) -> None:
        self._events.append(ArgumentsDelta(index=self._num_calls - 1, arguments=arguments))
        self._num_complete_calls += complete

    def _take(self, length: int) -> None:
        """Drop the first `length` characters of the held text."""
        self._held, self._at = self._held[length:], 0

    def _go(self, state: Callable[[], bool]) -> bool:
        self._state = state
        return True


def _read_call(text: str) -> tuple[str, str] | None:
    """Name and arguments of a complete call, `{}` if it has none; None if it is not a call."""
    try:
        call = json.loads(text)
    except (ValueError, RecursionError):
        return None
    name, arguments = call.get("name"), call.get("arguments", {})
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        return None
    return name, _as_written(text, "arguments") or "{}"


def _as_written(text: str, name: str) -> str | None:
    """The value of the member `name` of a JSON object, as it stands in the text."""
    decoder = json.JSONDecoder()
    written, at = None, _skip(_BLANK, text, 1)
    while text[at] != "}":
        key, at = decoder.raw_decode(text, at)
        begin = _skip(_COLON, text, at)
        _, at = decoder.raw_decode(text, begin)
        written = text[begin:at] if key == name else written
        at = _skip(_SEPARATOR, text, at)
    return written


def _skip(pattern: re.Pattern[str], text: str, at: int) -> int:
    """The index after `pattern`, if that matches at `at`."""
    match = pattern.match(text, at)
    return at if match is None else match.end()
