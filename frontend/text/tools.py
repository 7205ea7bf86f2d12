"""Tools and calls in our own words: what may be called, what is asked, what was called, and a stream of calls.

Imports nothing of ours, so that conversations can hold calls. Refuses wire formats and prompts.
"""

import hashlib
import secrets
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

TOOL_CALLS = "[TOOL_CALLS]"
"""Mistral's marker (mistral-common, `SpecialTokens.tool_calls`): what follows it is a JSON array of calls."""

_ALPHANUMERIC = string.ascii_letters + string.digits
_MISTRAL_ID_LENGTH = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function. `parameters` is a JSON schema of its one argument, an object; `strict` is what the client said.

    `param` is its path in the request, for errors.
    """

    name: str
    description: str | None
    parameters: Mapping[str, Any]
    strict: bool | None = None
    param: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolChoice:
    """Whether the answer calls: not, as the model likes, at least once, or the function `name` exactly once."""

    mode: Literal["none", "auto", "required", "named"]
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """What a request wants of tools. Without tools the choice is `none`, and the other way round."""

    tools: tuple[Tool, ...] = ()
    choice: ToolChoice = ToolChoice(mode="none")
    parallel: bool = True


NO_TOOLS = ToolUse()


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One call. `arguments` is the JSON text of an object in a request, and whatever the model wrote in an answer."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of what the model says to the user."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallOpened:
    """A call begins; its arguments follow. `index` counts the calls of an answer from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgumentsDelta:
    """More of the arguments of call `index`, as the model wrote them."""

    index: int
    arguments: str


ToolEvent = TextDelta | ToolCallOpened | ArgumentsDelta


def collect(events: Iterable[ToolEvent]) -> tuple[str, tuple[ToolCall, ...]]:
    """All that was said, and all that was called."""
    texts: list[str] = []
    opened: dict[int, ToolCallOpened] = {}
    arguments: dict[int, list[str]] = {}
    for event in events:
        if isinstance(event, TextDelta):
            texts.append(event.text)
        elif isinstance(event, ToolCallOpened):
            opened[event.index], arguments[event.index] = event, []
        else:
            arguments[event.index].append(event.arguments)
    calls = (ToolCall(id=call.id, name=call.name, arguments="".join(arguments[i])) for i, call in opened.items())
    return "".join(texts), tuple(calls)


def finish_reason(
    choice: ToolChoice, reason: Literal["stop", "length"], *, all_calls_complete: bool
) -> Literal["stop", "length", "tool_calls"]:
    """OpenAI's word for why the answer is over.

    A named function ends in `stop`, as OpenAI says of it. `length` stays `length`, and a stop string that cut a call
    is `stop`: `tool_calls` promises calls that are whole.
    """
    called = all_calls_complete and choice.mode in ("auto", "required")
    return "tool_calls" if called and reason == "stop" else reason


def new_openai_id() -> str:
    """An id as OpenAI's look."""
    return f"call_{secrets.token_hex(12)}"


def new_mistral_id() -> str:
    """An id as Mistral's templates demand: nine letters and digits."""
    return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(_MISTRAL_ID_LENGTH))


def to_mistral_id(call_id: str) -> str:
    """`call_id` if Mistral's templates take it, else the same nine letters and digits for it every time."""
    if len(call_id) == _MISTRAL_ID_LENGTH and call_id.isascii() and call_id.isalnum():
        return call_id
    number = int.from_bytes(hashlib.sha256(call_id.encode()).digest(), "big")
    digits = (number // len(_ALPHANUMERIC) ** place % len(_ALPHANUMERIC) for place in range(_MISTRAL_ID_LENGTH))
    return "".join(_ALPHANUMERIC[digit] for digit in digits)
