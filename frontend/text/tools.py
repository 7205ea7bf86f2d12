"""Tools and tool calls as values: the functions of a request, its `tool_choice`, calls, and the events of an answer.

Not here: the wire format (openai/tools) and the prompt (tool_prompt.py).
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
"""Characters in the id of a call, as Mistral's templates demand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function. `parameters` is a JSON Schema of its arguments, an object; `strict` is as the client sent it.

    `param` is its path in the request, and `schema_param` that of its schema, for error messages.
    """

    name: str
    description: str | None
    parameters: Mapping[str, Any]
    strict: bool | None = None
    param: str = field(default="", compare=False)
    schema_param: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolChoice:
    """OpenAI's `tool_choice`.

    The answer calls no function (`none`), any (`auto`), at least one (`required`), or exactly `name` once (`named`).
    `allowed` are the names of those that it may call with `auto` and `required`; empty: all of the request.
    """

    mode: Literal["none", "auto", "required", "named"]
    name: str = ""
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """The tools of a request. The choice is `none` exactly if there are no tools."""

    tools: tuple[Tool, ...] = ()
    choice: ToolChoice = ToolChoice(mode="none")
    parallel: bool = True


NO_TOOLS = ToolUse()


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One call. `arguments` is the JSON text of an object in a request; in an answer, any text that the model wrote."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text of the answer."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallStart:
    """A call begins; its arguments follow. `index` counts the calls of an answer from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgumentsDelta:
    """More of the arguments of call `index`, as the model wrote them."""

    index: int
    arguments: str


ToolEvent = TextDelta | ToolCallStart | ArgumentsDelta


def collect(events: Iterable[ToolEvent]) -> tuple[str, tuple[ToolCall, ...]]:
    """The complete text and all calls of an answer."""
    texts: list[str] = []
    opened: dict[int, ToolCallStart] = {}
    arguments: dict[int, list[str]] = {}
    for event in events:
        if isinstance(event, TextDelta):
            texts.append(event.text)
        elif isinstance(event, ToolCallStart):
            opened[event.index], arguments[event.index] = event, []
        else:
            arguments[event.index].append(event.arguments)
    calls = (ToolCall(id=call.id, name=call.name, arguments="".join(arguments[i])) for i, call in opened.items())
    return "".join(texts), tuple(calls)


def chat_finish_reason(
    choice: ToolChoice, reason: Literal["stop", "length"], *, all_calls_complete: bool
) -> Literal["stop", "length", "tool_calls"]:
    """OpenAI's `finish_reason`, given why generation ended.

    `tool_calls` means that all calls are complete: `length` stays `length`, and a stop string that cut a call is
    `stop`. The call of a named function also ends with `stop`, as OpenAI documents.
    """
    called = all_calls_complete and choice.mode in ("auto", "required")
    return "tool_calls" if called and reason == "stop" else reason


def new_openai_id() -> str:
    """An id in the form of OpenAI's."""
    return f"call_{secrets.token_hex(12)}"


def new_mistral_id() -> str:
    """An id as Mistral's templates demand: nine letters and digits."""
    return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(_MISTRAL_ID_LENGTH))


def to_mistral_id(call_id: str) -> str:
    """`call_id` if Mistral's templates accept it; otherwise nine letters and digits derived from it."""
    if len(call_id) == _MISTRAL_ID_LENGTH and call_id.isascii() and call_id.isalnum():
        return call_id
    number = int.from_bytes(hashlib.sha256(call_id.encode()).digest(), "big")
    digits = (number // len(_ALPHANUMERIC) ** place % len(_ALPHANUMERIC) for place in range(_MISTRAL_ID_LENGTH))
    return "".join(_ALPHANUMERIC[digit] for digit in digits)
