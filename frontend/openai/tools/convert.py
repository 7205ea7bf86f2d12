"""OpenAI's JSON of tools and calls, to our values and back.

Refuses tools that are no functions, each by its type, and what would only fail later: names that are taken twice or
cannot be written into a prompt, a choice of a function that is not there, results of calls that nobody made. The older
`functions` and `function_call` have no place here; parameters.py refuses them.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import orjson
from pydantic import BeforeValidator, Field, PlainValidator
from pydantic_core import PydanticCustomError

from frontend.errors import InvalidRequest
from frontend.openai.fields import Body
from frontend.text.messages import Message, Role
from frontend.text.tool_prompt import canonical_json
from frontend.text.tools import NO_TOOLS, TextDelta, Tool, ToolCall, ToolCallOpened, ToolChoice, ToolEvent, ToolUse

MAX_TOOLS = 128
"""OpenAI's limit."""

MAX_TOOLS_BYTES = 256 * 1024
"""As JSON, all tools of a request together; no context that we serve would hold more."""

EscapeSpecialTokens = Callable[[str], str]
"""Marks control tokens in a client's text as text: `Tokenizer.escape_special_tokens`."""

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NO_PARAMETERS = {"type": "object", "properties": {}}


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
    return unnamed_tool_choice(value, '{"type": "function", "function": {"name": ...}}')


def unnamed_tool_choice(value: Any, expected: str) -> ToolChoice:
    """One of OpenAI's three words; the error says that a choice may also look as `expected`."""
    if value in ("none", "auto", "required"):
        return ToolChoice(mode=value)
    raise PydanticCustomError(
        "tool_choice",
        'Input should be "none", "auto", "required" or {expected}; found {found}',
        {"expected": expected, "found": repr(value)[:100]},
    )


FunctionType = Annotated[
    Literal["function"], BeforeValidator(_function_type, json_schema_input_type=Literal["function"])
]


class FunctionDefinition(Body):
    """A function; without `parameters` it takes none."""

    name: Annotated[str, Field(pattern=f"^{_NAME.pattern}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTyped(Body):
    """What has a type that can only be `function`. It comes first, so that others are refused by their type."""

    type: FunctionType


class FunctionTool(FunctionTyped):
    """One element of `tools`."""

    function: FunctionDefinition


class FunctionName(Body):
    """The function of a choice."""

    name: str


class NamedToolChoice(Body):
    """The form of `tool_choice` that names a function."""

    type: Literal["function"]
    function: FunctionName


class FunctionCall(Body):
    """What was called; `arguments` is JSON text."""

    name: str
    arguments: str


class FunctionToolCall(Body):
    """One element of an assistant's `tool_calls`, in requests and in answers."""

    id: Annotated[str, Field(min_length=1, max_length=256)]
    type: FunctionType = "function"
    function: FunctionCall


ToolList = Annotated[list[FunctionTool], Field(max_length=MAX_TOOLS)]
"""`tools` of a request."""

ToolChoiceField = Annotated[
    ToolChoice,
    PlainValidator(_tool_choice, json_schema_input_type=Literal["none", "auto", "required"] | NamedToolChoice),
]
"""`tool_choice` of a request."""


class ToolMessageFields(Body):
    """What calls add to a message: the assistant's `tool_calls`, and in the role `tool` the call that is answered."""

    tool_calls: list[FunctionToolCall] | None = None
    tool_call_id: str | None = None


def to_tool_use(
    functions: Mapping[str, FunctionDefinition], choice: ToolChoice | None, parallel: bool | None
) -> ToolUse:
    """What a request wants of tools; by default the model may call those that are there, several at once.

    `functions` are by their paths in the request. With `none` the model is not even told of them. Raises
    InvalidRequest.
    """
    choice = choice or ToolChoice(mode="auto" if functions else "none")
    if not functions and choice.mode in ("required", "named"):
        raise InvalidRequest("`tool_choice` demands a call, but there are no `tools`.", param="tool_choice")
    names = [function.name for function in functions.values()]
    if taken := [name for name, times in Counter(names).items() if times > 1]:
        raise InvalidRequest(f"Two functions are named `{taken[0]}`; names must differ.", param="tools")
    if choice.mode == "named" and choice.name not in names:
        there = ", ".join(f"`{name}`" for name in names)
        raise InvalidRequest(
            f"`tool_choice` names a function that is not in `tools`, which has {there}.", param="tool_choice"
        )
    _check_size(functions)
    if not functions or choice.mode == "none":
        return NO_TOOLS
    tools = tuple(_to_tool(function, param) for param, function in functions.items())
    return ToolUse(tools=tools, choice=choice, parallel=parallel is not False)


def escape_tool_use(tool_use: ToolUse, escape: EscapeSpecialTokens) -> ToolUse:
    """The same for a prompt: control tokens in descriptions and schemas are text."""
    tools = (
        replace(
            tool,
            description=None if tool.description is None else escape(tool.description),
            parameters=escape_strings(tool.parameters, escape),
        )
        for tool in tool_use.tools
    )
    return replace(tool_use, tools=tuple(tools))


def to_message(
    body: ToolMessageFields, role: Role, text: str | None, *, escape: EscapeSpecialTokens, param: str
) -> Message:
    """A message for a prompt, shielded. `text` is None where there is no content, `param` is its path in the request.

    JSON, of arguments and of results, is written anew before it is shielded: an escape may spell a control token.
    """
    if body.tool_calls and role != "assistant":
        raise InvalidRequest("Only the assistant makes `tool_calls`.", param=f"{param}.tool_calls")
    if (body.tool_call_id is None) == (role == "tool"):
        raise InvalidRequest(
            "`tool_call_id` says which call a message of the role `tool` answers; others have none.",
            param=f"{param}.tool_call_id",
        )
    if text is None and not body.tool_calls:
        raise InvalidRequest("A message without `tool_calls` needs a `content`.", param=f"{param}.content")
    text = text or ""
    return Message(
        role,
        _escaped_result(text, escape) if role == "tool" else escape(text),
        tuple(
            to_tool_call(call.id, call.function, escape=escape, param=f"{param}.tool_calls[{index}].function")
            for index, call in enumerate(body.tool_calls or ())
        ),
        body.tool_call_id,
    )


def to_result(call_id: str, text: str, *, escape: EscapeSpecialTokens) -> Message:
    """What a call returned, as a message for a prompt, shielded."""
    return Message("tool", _escaped_result(text, escape), tool_call_id=call_id)


def _escaped_result(text: str, escape: EscapeSpecialTokens) -> str:
    return escape(canonical_json(text) or text)


def check_results(messages: Sequence[Message]) -> None:
    """Raises InvalidRequest for a result that answers no call of the assistant's turn in front of it."""
    if (index := stray_result(messages)) is not None:
        raise InvalidRequest(
            "A message of the role `tool` must follow the assistant's message with the call of its `tool_call_id`.",
            param=f"messages[{index}].tool_call_id",
        )


def stray_result(messages: Sequence[Message]) -> int | None:
    """The place of the first result that answers no call of the assistant's turn in front of it."""
    call_ids: set[str | None] = set()
    for index, message in enumerate(messages):
        if message.role != "tool":
            call_ids = {call.id for call in message.tool_calls}
        elif message.tool_call_id not in call_ids:
            return index
    return None


def to_delta(event: ToolEvent) -> dict[str, Any]:
    """The `delta` of a chunk."""
    if isinstance(event, TextDelta):
        return {"content": event.text}
    if isinstance(event, ToolCallOpened):
        function = {"name": event.name, "arguments": ""}
        return {"tool_calls": [{"index": event.index, "id": event.id, "type": "function", "function": function}]}
    return {"tool_calls": [{"index": event.index, "function": {"arguments": event.arguments}}]}


def to_wire(call: ToolCall) -> FunctionToolCall:
    """A call as a whole answer has it."""
    return FunctionToolCall(id=call.id, function=FunctionCall(name=call.name, arguments=call.arguments))


def to_tool_call(call_id: str, call: FunctionCall, *, escape: EscapeSpecialTokens, param: str) -> ToolCall:
    """A call for a prompt, shielded. `param` is the path in the request of what holds its name and arguments."""
    if not _NAME.fullmatch(call.name):
        raise InvalidRequest(f"No function can have this name; they match {_NAME.pattern}.", param=f"{param}.name")
    arguments = canonical_json(call.arguments or "{}")
    if arguments is None or not arguments.startswith("{"):
        raise InvalidRequest("The arguments are not the text of a JSON object.", param=f"{param}.arguments")
    return ToolCall(id=call_id, name=call.name, arguments=escape(arguments))


def _to_tool(function: FunctionDefinition, param: str) -> Tool:
    return Tool(
        name=function.name,
        description=function.description,
        parameters=_NO_PARAMETERS if function.parameters is None else function.parameters,
        strict=function.strict,
        param=param,
    )


def _check_size(functions: Mapping[str, FunctionDefinition]) -> None:
    num_bytes = 0
    for path, function in functions.items():
        try:
            num_bytes += len(orjson.dumps({"type": "function", "function": function.model_dump()}))
        except TypeError as exc:
            param = f"{path}.parameters"
            raise InvalidRequest(f"`{param}` cannot be written as JSON: {exc}.", param=param) from exc
    if num_bytes > MAX_TOOLS_BYTES:
        raise InvalidRequest(f"`tools` is {num_bytes} bytes of JSON; {MAX_TOOLS_BYTES} are allowed.", param="tools")


def escape_strings(value: Any, escape: EscapeSpecialTokens) -> Any:
    """Any JSON value with all its strings shielded."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, dict):
        return {escape(key): escape_strings(member, escape) for key, member in value.items()}
    return [escape_strings(element, escape) for element in value] if isinstance(value, list) else value
