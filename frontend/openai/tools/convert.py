"""OpenAI's tools and tool calls to our values, and our tool events back to OpenAI's JSON.

Checks what the types cannot: names that occur twice, a choice of a function that is not in the request, arguments that
are no JSON object, results of calls that the conversation does not have.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from frontend.errors import InvalidRequest
from frontend.text.escape import EscapeSpecialTokens
from frontend.text.messages import Message, Role
from frontend.text.tool_prompt import canonical_json
from frontend.text.tools import NO_TOOLS, TextDelta, Tool, ToolCall, ToolCallStart, ToolChoice, ToolEvent, ToolUse

from .types import NAME, FunctionCall, FunctionDefinition, FunctionToolCall, ToolMessageFields

MAX_TOOLS_BYTES = 256 * 1024
"""Limit on the JSON of all tools of a request: more than any context of this product holds."""

_NO_PARAMETERS = {"type": "object", "properties": {}}


def to_tool_use(
    functions: Mapping[str, FunctionDefinition], choice: ToolChoice | None, parallel: bool | None
) -> ToolUse:
    """The tools of a request and how the answer may call them. By default it may call any, several at once.

    `functions` are by their paths in the request. With `none` the functions are left out of the prompt too. Raises
    InvalidRequest.
    """
    choice = choice or ToolChoice(mode="auto" if functions else "none")
    if not functions and choice.mode in ("required", "named"):
        raise InvalidRequest("`tool_choice` demands a call, but there are no `tools`.", param="tool_choice")
    if choice.allowed:
        functions, choice = _allowed(functions, choice.allowed), ToolChoice(mode=choice.mode)
    names = [function.name for function in functions.values()]
    if repeated := [name for name, times in Counter(names).items() if times > 1]:
        raise InvalidRequest(f"Two functions are named `{repeated[0]}`; names must differ.", param="tools")
    if choice.mode == "named" and choice.name not in names:
        available = ", ".join(f"`{name}`" for name in names)
        raise InvalidRequest(
            f"`tool_choice` names a function that is not in `tools`, which has {available}.", param="tool_choice"
        )
    _check_size(functions)
    if not functions or choice.mode == "none":
        return NO_TOOLS
    tools = tuple(_to_tool(function, param) for param, function in functions.items())
    return ToolUse(tools=tools, choice=choice, parallel=parallel is not False)


def _allowed(functions: Mapping[str, FunctionDefinition], allowed: Sequence[str]) -> Mapping[str, FunctionDefinition]:
    """The functions that may be called. The others are left out of the prompt too, as with `none`."""
    names = {function.name for function in functions.values()}
    if unknown := [name for name in allowed if name not in names]:
        raise InvalidRequest(
            f"`tool_choice` allows a function that is not in `tools`: `{unknown[0][:100]}`.", param="tool_choice"
        )
    return {path: function for path, function in functions.items() if function.name in allowed}


def check_tool_fields(message: ToolMessageFields, role: Role, *, has_content: bool, param: str) -> None:
    """Raises InvalidRequest for tool fields that do not go with the role. `param` is the message's path."""
    if message.tool_calls and role != "assistant":
        raise InvalidRequest("Only the assistant makes `tool_calls`.", param=f"{param}.tool_calls")
    if (message.tool_call_id is None) == (role == "tool"):
        raise InvalidRequest(
            "`tool_call_id` says which call a message of the role `tool` answers; others have none.",
            param=f"{param}.tool_call_id",
        )
    if not has_content and not message.tool_calls:
        raise InvalidRequest("A message without `tool_calls` needs a `content`.", param=f"{param}.content")


def to_tool_calls(
    calls: Sequence[FunctionToolCall], *, escape: EscapeSpecialTokens, param: str
) -> tuple[ToolCall, ...]:
    """The calls of one message, escaped for a prompt. `param` is the message's path."""
    return tuple(
        to_tool_call(call.id, call.function, escape=escape, param=f"{param}.tool_calls[{index}].function")
        for index, call in enumerate(calls)
    )


def to_tool_call(call_id: str, call: FunctionCall, *, escape: EscapeSpecialTokens, param: str) -> ToolCall:
    """A call, escaped for a prompt. `param` is the path of the object with its name and arguments.

    The arguments are parsed and rewritten before they are escaped, because a JSON escape may spell a special token.
    """
    if not NAME.fullmatch(call.name):
        raise InvalidRequest(f"No function can have this name; they match {NAME.pattern}.", param=f"{param}.name")
    arguments = canonical_json(call.arguments or "{}")
    if arguments is None or not arguments.startswith("{"):
        raise InvalidRequest("The arguments are not the text of a JSON object.", param=f"{param}.arguments")
    return ToolCall(id=call_id, name=call.name, arguments=escape(arguments))


def to_result(call_id: str, text: str, *, escape: EscapeSpecialTokens) -> Message:
    """The result of a call as a message of the role `tool`, escaped. JSON is rewritten, as in `to_tool_call`."""
    return Message("tool", escape(canonical_json(text) or text), tool_call_id=call_id)


def check_results(messages: Sequence[Message]) -> None:
    """Raises InvalidRequest for a result that answers no call of the assistant message before it."""
    if (index := stray_result(messages)) is not None:
        raise InvalidRequest(
            "A message of the role `tool` must follow the assistant's message with the call of its `tool_call_id`.",
            param=f"messages[{index}].tool_call_id",
        )


def stray_result(messages: Sequence[Message]) -> int | None:
    """Index of the first result that answers no call of the assistant message before it, or None."""
    call_ids: set[str | None] = set()
    for index, message in enumerate(messages):
        if message.role != "tool":
            call_ids = {call.id for call in message.tool_calls}
        elif message.tool_call_id not in call_ids:
            return index
    return None


def to_delta(event: ToolEvent) -> dict[str, Any]:
    """The `delta` object of a chunk."""
    if isinstance(event, TextDelta):
        return {"content": event.text}
    if isinstance(event, ToolCallStart):
        function = {"name": event.name, "arguments": ""}
        return {"tool_calls": [{"index": event.index, "id": event.id, "type": "function", "function": function}]}
    return {"tool_calls": [{"index": event.index, "function": {"arguments": event.arguments}}]}


def to_wire(call: ToolCall) -> FunctionToolCall:
    """A call in a reply that is not streamed."""
    return FunctionToolCall(id=call.id, function=FunctionCall(name=call.name, arguments=call.arguments))


def _to_tool(function: FunctionDefinition, param: str) -> Tool:
    return Tool(
        name=function.name,
        description=function.description,
        parameters=_NO_PARAMETERS if function.parameters is None else function.parameters,
        strict=function.strict,
        param=param,
        schema_param=_schema_param(function, param),
    )


def _schema_param(function: FunctionDefinition, param: str) -> str:
    """The path of the schema, which may have another name than OpenAI's. `param` is the path of the function."""
    return f"{param}.{type(function).model_fields['parameters'].alias or 'parameters'}"


def _check_size(functions: Mapping[str, FunctionDefinition]) -> None:
    num_bytes = 0
    for path, function in functions.items():
        try:
            num_bytes += len(orjson.dumps({"type": "function", "function": function.model_dump()}))
        except TypeError as exc:
            param = _schema_param(function, path)
            raise InvalidRequest(f"`{param}` cannot be written as JSON: {exc}.", param=param) from exc
    if num_bytes > MAX_TOOLS_BYTES:
        raise InvalidRequest(f"`tools` is {num_bytes} bytes of JSON; {MAX_TOOLS_BYTES} are allowed.", param="tools")
