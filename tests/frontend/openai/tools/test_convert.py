"""OpenAI's fields of tools and calls: requests to values, refusals with their `param`, and events to deltas."""

from typing import Any

import pytest
from openai.types.chat.chat_completion_chunk import ChoiceDelta
from openai.types.chat.chat_completion_message_function_tool_call import ChatCompletionMessageFunctionToolCall
from pydantic import TypeAdapter, ValidationError

from frontend.errors import InvalidRequest
from frontend.openai.body import Body
from frontend.openai.chat.request import to_message
from frontend.openai.chat.types import ChatMessage
from frontend.openai.tools.convert import MAX_TOOLS_BYTES, check_results, to_delta, to_tool_use, to_wire
from frontend.openai.tools.types import MAX_TOOLS, ToolChoiceField, ToolList
from frontend.text.escape import escape_tool_use
from frontend.text.messages import Message, Role
from frontend.text.tools import (
    NO_TOOLS,
    ArgumentsDelta,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallStart,
    ToolChoice,
    ToolEvent,
    ToolUse,
    chat_finish_reason,
    collect,
    new_mistral_id,
    new_openai_id,
    to_mistral_id,
)


class Request(Body):
    """The fields of a request that has tools."""

    tools: ToolList | None = None
    tool_choice: ToolChoiceField | None = None
    parallel_tool_calls: bool | None = None


def tool(name: str = "f", **function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **function}}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [named(name) for name in names]}}


def use_of(**fields: Any) -> ToolUse:
    request = Request.model_validate(fields)
    functions = {f"tools[{index}].function": tool.function for index, tool in enumerate(request.tools or ())}
    return to_tool_use(functions, request.tool_choice, request.parallel_tool_calls)


F = Tool(name="f", description=None, parameters={"type": "object", "properties": {}})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, NO_TOOLS),
        ({"tools": [], "tool_choice": "auto"}, NO_TOOLS),
        ({"tools": [tool()], "tool_choice": "none"}, NO_TOOLS),
        ({"tools": [tool()]}, ToolUse(tools=(F,), choice=ToolChoice(mode="auto"))),
        ({"tools": [tool()], "tool_choice": "required"}, ToolUse(tools=(F,), choice=ToolChoice(mode="required"))),
        (
            {"tools": [tool()], "tool_choice": named("f"), "parallel_tool_calls": False},
            ToolUse(tools=(F,), choice=ToolChoice(mode="named", name="f"), parallel=False),
        ),
        (
            {"tools": [tool("e"), tool(), tool("g")], "tool_choice": allowed("required", "f")},
            ToolUse(
                tools=(Tool(name="f", description=None, parameters=F.parameters),), choice=ToolChoice(mode="required")
            ),
        ),
        (
            {"tools": [tool(description="d", parameters={"type": "object"}, strict=True)]},
            ToolUse(
                tools=(Tool(name="f", description="d", parameters={"type": "object"}, strict=True),),
                choice=ToolChoice(mode="auto"),
            ),
        ),
    ],
)
def test_tools_and_choice_of_a_request(fields: dict[str, Any], expected: ToolUse) -> None:
    assert use_of(**fields) == expected


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"tool_choice": "required"}, "tool_choice", "no `tools`"),
        ({"tool_choice": named("f"), "tools": []}, "tool_choice", "no `tools`"),
        ({"tools": [tool("f"), tool("g")], "tool_choice": named("h")}, "tool_choice", "has `f`, `g`"),
        ({"tools": [tool("f")], "tool_choice": allowed("auto", "f", "h")}, "tool_choice", "not in `tools`: `h`"),
        ({"tool_choice": allowed("auto", "f")}, "tool_choice", "not in `tools`: `f`"),
        ({"tools": [tool("f"), tool("g"), tool("f")]}, "tools", "named `f`"),
        ({"tools": [tool(description="x" * MAX_TOOLS_BYTES)]}, "tools", "bytes of JSON"),
    ],
)
def test_invalid_tools_and_choices_are_refused(fields: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as caught:
        use_of(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize("depth", [252, 2000])
def test_schema_that_is_nested_too_deep_is_refused(depth: int) -> None:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"items": schema}
    with pytest.raises(InvalidRequest, match="Recursion limit") as caught:
        use_of(tools=[tool("g"), tool("f", parameters=schema)])
    assert caught.value.param == "tools[1].function.parameters"


@pytest.mark.parametrize(
    ("fields", "path", "message"),
    [
        ({"tools": [{"type": "web_search"}]}, ("tools", 0, "type"), "'web_search' is not supported; `function` is"),
        ({"tools": [tool("a b")]}, ("tools", 0, "function", "name"), "pattern"),
        ({"tools": [tool("f\n")]}, ("tools", 0, "function", "name"), "pattern"),
        ({"tools": [tool("")]}, ("tools", 0, "function", "name"), "pattern"),
        ({"tools": [tool("x" * 65)]}, ("tools", 0, "function", "name"), "pattern"),
        ({"tools": [tool(parameters=[])]}, ("tools", 0, "function", "parameters"), "dictionary"),
        ({"tools": [tool(strict="maybe")]}, ("tools", 0, "function", "strict"), "boolean"),
        ({"tools": [tool()] * (MAX_TOOLS + 1)}, ("tools",), "at most 128 items"),
        ({"tool_choice": "any"}, ("tool_choice",), "found 'any'"),
        ({"tool_choice": {"type": "custom", "custom": {"name": "f"}}}, ("tool_choice",), "found {'type': 'custom'"),
        ({"tool_choice": {"type": "allowed_tools"}}, ("tool_choice",), '{"type": "function", "function": {"name": '),
        ({"tool_choice": allowed("auto")}, ("tool_choice",), "a list of functions"),
        ({"tool_choice": allowed("none", "f")}, ("tool_choice",), '"auto" or "required"'),
        ({"tool_choice": {**allowed("auto", "f"), "x": 1}}, ("tool_choice",), "found"),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "mcp"}]}}},
            ("tool_choice",),
            "a list of functions",
        ),
        ({"tool_choice": {**named("f"), "x": 1}}, ("tool_choice",), "found"),
        ({"parallel_tool_calls": 2}, ("parallel_tool_calls",), "boolean"),
    ],
)
def test_invalid_fields_are_refused_by_path(fields: dict[str, Any], path: tuple[str | int, ...], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Request.model_validate(fields)
    error = caught.value.errors()[0]
    assert error["loc"] == path
    assert message in error["msg"]


def test_fields_can_be_described_in_openapi() -> None:
    schema = TypeAdapter(Request).json_schema(mode="validation")
    choices = schema["properties"]["tool_choice"]["anyOf"]
    assert {"enum": ["none", "auto", "required"], "type": "string"} in choices


def escape(text: str) -> str:
    return text.replace("</s>", "!")


def message_of(role: Role, text: str | None, **fields: Any) -> Message:
    message = ChatMessage.model_validate({"role": role, "content": text, **fields})
    return to_message(message, "messages[3]", escape)


def call(arguments: str, name: str = "f") -> dict[str, Any]:
    return {"id": "i", "type": "function", "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (message_of("user", "a</s>"), Message("user", "a!")),
        (
            message_of("assistant", None, tool_calls=[call('{"a":"\\u003c/s>"}')]),
            Message("assistant", "", (ToolCall(id="i", name="f", arguments='{"a": "!"}'),)),
        ),
        (
            message_of("assistant", "t", tool_calls=[call("")]),
            Message("assistant", "t", (ToolCall(id="i", name="f", arguments="{}"),)),
        ),
        (message_of("assistant", "t", tool_calls=[]), Message("assistant", "t")),
        (message_of("tool", '["\\u003c/s>",1]', tool_call_id="i"), Message("tool", '["!", 1]', tool_call_id="i")),
        (message_of("tool", "</s>", tool_call_id="i"), Message("tool", "!", tool_call_id="i")),
        (message_of("tool", "", tool_call_id="i"), Message("tool", "", tool_call_id="i")),
    ],
)
def test_messages_are_escaped_and_their_json_is_rewritten(message: Message, expected: Message) -> None:
    assert message == expected


TOO_DEEP = '{"a": ' * 300 + "1" + "}" * 300


@pytest.mark.parametrize(
    ("role", "text", "fields", "param"),
    [
        ("user", "a", {"tool_calls": [call("{}")]}, "messages[3].tool_calls"),
        ("user", "a", {"tool_call_id": "i"}, "messages[3].tool_call_id"),
        ("tool", "a", {}, "messages[3].tool_call_id"),
        ("assistant", None, {}, "messages[3].content"),
        ("assistant", None, {"tool_calls": [call("{}", "a b")]}, "messages[3].tool_calls[0].function.name"),
        ("assistant", None, {"tool_calls": [call("{}"), call('{"a')]}, "messages[3].tool_calls[1].function.arguments"),
        ("assistant", None, {"tool_calls": [call("[1]")]}, "messages[3].tool_calls[0].function.arguments"),
        ("assistant", None, {"tool_calls": [call(TOO_DEEP)]}, "messages[3].tool_calls[0].function.arguments"),
    ],
)  # fmt: skip
def test_contradictory_messages_are_refused(role: Role, text: str | None, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        message_of(role, text, **fields)
    assert caught.value.param == param


CALLING = Message("assistant", "", (ToolCall(id="i", name="f", arguments="{}"),))


def result(call_id: str) -> Message:
    return Message("tool", "1", tool_call_id=call_id)


def test_results_may_follow_the_message_with_their_calls() -> None:
    check_results([Message("user", "a"), CALLING, result("i"), result("i"), Message("user", "b")])


@pytest.mark.parametrize(
    "messages",
    [[Message("user", "a"), CALLING, result("j")], [CALLING, Message("user", "a"), result("i")], [CALLING, CALLING]],
)
def test_results_without_a_call_are_refused(messages: list[Message]) -> None:
    if messages[-1].role != "tool":
        messages = [result("i"), *messages]
    with pytest.raises(InvalidRequest) as caught:
        check_results(messages)
    result_index = next(index for index, message in enumerate(messages) if message.role == "tool")
    assert caught.value.param == f"messages[{result_index}].tool_call_id"


def test_every_string_of_a_tool_is_escaped() -> None:
    parameters = {"properties": {"</s>": {"enum": ["</s>", 1, None, ["</s>"]]}}}
    hostile = Tool(name="f", description="</s>", parameters=parameters)
    choice = ToolChoice(mode="auto")
    assert escape_tool_use(ToolUse(tools=(hostile, F), choice=choice), escape).tools == (
        Tool(name="f", description="!", parameters={"properties": {"!": {"enum": ["!", 1, None, ["!"]]}}}),
        F,
    )


def test_events_are_openais_deltas() -> None:
    events: list[ToolEvent] = [
        TextDelta("Hm."),
        ToolCallStart(index=0, id="call_1", name="f"),
        ArgumentsDelta(index=0, arguments='{"a"'),
        ArgumentsDelta(index=0, arguments=": 1}"),
    ]
    assert [to_delta(event) for event in events] == [
        {"content": "Hm."},
        {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]},
    ]
    for event in events:
        ChoiceDelta.model_validate(to_delta(event), extra="forbid")
    text, calls = collect(events)
    assert (text, calls) == ("Hm.", (ToolCall(id="call_1", name="f", arguments='{"a": 1}'),))
    complete = to_wire(calls[0]).model_dump()
    assert list(complete) == ["id", "type", "function"]
    parsed = ChatCompletionMessageFunctionToolCall.model_validate(complete, extra="forbid")
    assert parsed.function.arguments == '{"a": 1}'


@pytest.mark.parametrize(
    ("mode", "reason", "complete", "expected"),
    [
        ("none", "stop", False, "stop"),
        ("auto", "stop", False, "stop"),
        ("auto", "stop", True, "tool_calls"),
        ("auto", "length", True, "length"),
        ("auto", "length", False, "length"),
        ("required", "stop", True, "tool_calls"),
        ("required", "stop", False, "stop"),
        ("named", "stop", True, "stop"),
        ("named", "length", False, "length"),
    ],
)
def test_finish_reason_is_openais(mode: Any, reason: Any, complete: bool, expected: str) -> None:
    assert chat_finish_reason(ToolChoice(mode=mode), reason, all_calls_complete=complete) == expected


def test_ids_have_the_forms_of_openai_and_mistral() -> None:
    openai_ids, mistral_ids = {new_openai_id() for _ in range(99)}, {new_mistral_id() for _ in range(99)}
    assert len(openai_ids) == len(mistral_ids) == 99
    for call_id in openai_ids:
        assert call_id.startswith("call_")
        assert len(bytes.fromhex(call_id[5:])) == 12
    for call_id in mistral_ids:
        assert to_mistral_id(call_id) == call_id
