"""OpenAI's JSON types of function tools, tool choices and tool calls. Other types of tools are refused."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator
from pydantic_core import PydanticCustomError

from frontend.openai.body import Body
from frontend.openai.fields import FAIL_FAST
from frontend.text.tools import ToolChoice

MAX_TOOLS = 128
"""OpenAI's limit."""

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""OpenAI's rule for the names of functions."""


def _function_type(value: Any) -> Any:
    if value != "function":
        raise PydanticCustomError(
            "tool_type", "The type {value} is not supported; `function` is", {"value": repr(value)}
        )
    return value


def _tool_choice(value: Any) -> ToolChoice:
    match value:
        case {"type": "function", "function": {"name": str(name), **beside}, **more} if not beside and not more:
            return ToolChoice(mode="named", name=name)
        case {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [*tools], **beside}, **more} if not (
            beside or more
        ):
            functions = [tool.get("function") if isinstance(tool, dict) else None for tool in tools]
            return allowed_tools(mode, tools, functions, value)
    return unnamed_tool_choice(value, '{"type": "function", "function": {"name": ...}}')


def unnamed_tool_choice(value: Any, expected: str) -> ToolChoice:
    """`none`, `auto` or `required`; `expected` is the endpoint's other form of a choice, for the error message."""
    if value in ("none", "auto", "required"):
        return ToolChoice(mode=value)
    raise PydanticCustomError(
        "tool_choice",
        'Input should be "none", "auto", "required" or {expected}; found {found}',
        {"expected": expected, "found": repr(value)[:100]},
    )


def allowed_tools(mode: Any, tools: Sequence[Any], functions: Sequence[Any], value: Any) -> ToolChoice:
    """OpenAI's `allowed_tools`. `functions` are the objects with the `name` of each tool, and `value` is the choice."""
    names = [function.get("name") if isinstance(function, dict) else None for function in functions]
    are_functions = all(isinstance(tool, dict) and tool.get("type") == "function" for tool in tools)
    if mode in ("auto", "required") and names and are_functions and all(isinstance(name, str) for name in names):
        return ToolChoice(mode=mode, allowed=tuple(map(str, names)))
    raise PydanticCustomError(
        "allowed_tools",
        'Input should have a `mode`, "auto" or "required", and `tools`, a list of functions; found {found}',
        {"found": repr(value)[:100]},
    )


FunctionType = Annotated[
    Literal["function"], BeforeValidator(_function_type, json_schema_input_type=Literal["function"])
]


class FunctionDefinition(Body):
    """A function. One without `parameters` takes no arguments."""

    name: Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTyped(Body):
    """An object whose `type` must be `function`. The field is checked first, so the error of another type names it."""

    type: FunctionType


class FunctionTool(FunctionTyped):
    """One element of `tools`."""

    function: FunctionDefinition


class FunctionName(Body):
    """The name of the chosen function."""

    name: str


class NamedToolChoice(Body):
    """The form of `tool_choice` that names a function."""

    type: Literal["function"]
    function: FunctionName


class ChosenFunction(Body):
    """One of the functions that a `tool_choice` allows."""

    type: Literal["function"]
    function: FunctionName


class AllowedTools(Body):
    """The functions that the answer may call: any of them (`auto`), or at least one (`required`)."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[ChosenFunction], Field(min_length=1)]


class AllowedToolsChoice(Body):
    """The form of `tool_choice` that names several functions."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


class FunctionCall(Body):
    """A call: the function's name, and its arguments as JSON text."""

    name: str
    arguments: str


class FunctionToolCall(Body):
    """One element of an assistant's `tool_calls`, in requests and in answers."""

    id: Annotated[str, Field(min_length=1, max_length=256)]
    type: FunctionType = "function"
    function: FunctionCall


ToolList = Annotated[list[FunctionTool], FAIL_FAST, Field(max_length=MAX_TOOLS)]
"""`tools` of a request."""

ToolChoiceField = Annotated[
    ToolChoice,
    PlainValidator(
        _tool_choice, json_schema_input_type=Literal["none", "auto", "required"] | NamedToolChoice | AllowedToolsChoice
    ),
]
"""`tool_choice` of a request."""


class ToolMessageFields(Body):
    """Fields of messages about calls: the assistant's `tool_calls`, and the call that a `tool` message answers."""

    tool_calls: Annotated[list[FunctionToolCall], FAIL_FAST] | None = None
    tool_call_id: str | None = None
