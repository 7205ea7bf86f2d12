"""A body of the Responses API to a job: the prompt of the same conversation in chat, and the effect of every field."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from frontend.errors import InvalidRequest, UnsupportedParameter
from frontend.generation import SamplingDefaults, SamplingParams
from frontend.guided_decoding import Choice, JsonObject, JsonSchema
from frontend.openai.chat.request import to_chat_job
from frontend.openai.chat.types import ChatCompletionRequest
from frontend.openai.job import Job
from frontend.openai.reply import Reply
from frontend.openai.responses.request import to_responses_job
from frontend.openai.responses.types import ResponsesRequest
from frontend.openai.responses.unsupported import UNSUPPORTED_BY_RESPONSES
from frontend.openai.unsupported import UNSUPPORTED, ignored_params
from frontend.text.served_model import ServedModel

REPLY = Reply(id="resp_0", created=0, model="m")
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FLAT = {"type": "function", "name": "weather", "description": "d", "parameters": SCHEMA}
NESTED = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": SCHEMA}}
SPACE = {"type": "namespace", "name": "mcp__weather", "tools": [FLAT]}
CALL = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Bonn"}'}
CHAT_CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bonn"}'}}


def parse(**fields: Any) -> ResponsesRequest:
    return ResponsesRequest.model_validate({"model": "m", "input": "Hi", **fields})


def job(model: ServedModel, **fields: Any) -> Job:
    return to_responses_job(parse(**fields), model, REPLY, seed=7)


def params(model: ServedModel, **fields: Any) -> SamplingParams:
    return job(model, **fields).requests[0].sampling_params


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


CONVERSATIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"input": "Hi"}, {"messages": [user("Hi")]}),
    (
        {"input": "Hi", "instructions": "Kurz. </s>"},
        {"messages": [{"role": "system", "content": "Kurz. </s>"}, user("Hi")]},
    ),
    (
        {
            "input": [
                {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Kurz."}]},
                {"role": "user", "content": [{"type": "input_text", "text": t} for t in ("a", "b")]},
                {
                    "type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
                    "content": [{"type": "output_text", "text": "c", "annotations": [], "logprobs": []}],
                },
                {"role": "assistant", "content": "d"},
                {"type": None, "role": "user", "content": "</s>"},
            ]
        },
        {
            "messages": [
                {"role": "developer", "content": "Kurz."},
                {"role": "user", "content": "a\n\nb"},
                {"role": "assistant", "content": "c"},
                {"role": "assistant", "content": "d"},
                user("</s>"),
            ]
        },
    ),
    ({"input": "Hi", "tools": [FLAT]}, {"messages": [user("Hi")], "tools": [NESTED]}),
    ({"input": "Hi", "tools": [{"type": "web_search"}, SPACE]}, {"messages": [user("Hi")], "tools": [NESTED]}),
    ({"input": "Hi", "tools": [{"type": "local_shell"}]}, {"messages": [user("Hi")]}),
    (
        {"input": [user("Hi"), {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}, CALL]},
        {"messages": [user("Hi"), {"role": "assistant", "content": None, "tool_calls": [CHAT_CALL]}]},
    ),
    (
        {"input": "Hi", "tools": [FLAT], "tool_choice": {"type": "function", "name": "weather"}},
        {
            "messages": [user("Hi")],
            "tools": [NESTED],
            "tool_choice": {"type": "function", "function": {"name": "weather"}},
        },
    ),
    (
        {
            "tools": [FLAT],
            "parallel_tool_calls": False,
            "input": [
                user("Hi"),
                {"role": "assistant", "content": "Moment."},
                {**CALL, "id": "fc_1", "status": "completed"},
                {**CALL, "call_id": "call_2"},
                {"type": "function_call_output", "call_id": "call_2", "output": '{"</s>": 1}'},
                {
                    "type": "function_call_output", "id": None, "call_id": "call_1",
                    "output": [{"type": "input_text", "text": "rain"}],
                },
                CALL,
                {"type": "function_call_output", "call_id": "call_1", "output": "sun"},
            ],
        },
        {
            "tools": [NESTED],
            "parallel_tool_calls": False,
            "messages": [
                user("Hi"),
                {"role": "assistant", "content": "Moment.", "tool_calls": [CHAT_CALL, {**CHAT_CALL, "id": "call_2"}]},
                {"role": "tool", "tool_call_id": "call_2", "content": '{"</s>": 1}'},
                {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
                {"role": "assistant", "content": None, "tool_calls": [CHAT_CALL]},
                {"role": "tool", "tool_call_id": "call_1", "content": "sun"},
            ],
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "chat"), CONVERSATIONS)
@pytest.mark.parametrize("model", ["mixtral", "chatml"])
def test_prompt_is_that_of_the_same_conversation_in_chat(
    request: pytest.FixtureRequest, model: str, fields: dict[str, Any], chat: dict[str, Any]
) -> None:
    served: ServedModel = request.getfixturevalue(model)
    body = ChatCompletionRequest.model_validate({"model": "m", **chat})
    same = to_chat_job(body, served, REPLY, seed=7)
    assert job(served, **fields).requests == same.requests


def test_text_after_a_call_belongs_to_the_message_with_the_call(mixtral: ServedModel) -> None:
    result = {"type": "function_call_output", "call_id": "call_1", "output": "sun"}
    words = {"role": "assistant", "content": "Moment."}
    after, before = ([user("Hi"), *items, result] for items in ([CALL, words], [words, CALL]))
    assert job(mixtral, input=after).requests == job(mixtral, input=before).requests


HONOURED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"temperature": 0.7, "top_p": 1.0, "seed": 7, "logprobs": None}),
    ({"max_output_tokens": 5}, {"max_tokens": 5}),
    ({"temperature": 0, "top_p": 0.5}, {"temperature": 0.0, "top_p": 0.5}),
    ({"include": ["message.output_text.logprobs"]}, {"logprobs": True}),
    ({"include": ["message.output_text.logprobs"], "tools": [FLAT], "tool_choice": "none"}, {"logprobs": True}),
    ({"include": []}, {"logprobs": None}),
    ({"top_k": 40, "seed": 3, "stop": "x"}, {"top_k": 40, "seed": 3, "stop": ("x",)}),
    ({"min_tokens": 2, "presence_penalty": 1.0}, {"min_tokens": 2, "presence_penalty": 1.0}),
    ({"include": ["reasoning.encrypted_content"]}, {"logprobs": None}),
    ({"include": ["reasoning.encrypted_content"], "tools": [FLAT]}, {"logprobs": None}),
    ({"reasoning": {"effort": "high", "summary": "auto", "generate_summary": None}}, {}),
    ({"max_tool_calls": 1, "metadata": {"a": "b"}, "user": "u", "top_logprobs": 0, "stream_options": {}}, {}),
]


@pytest.mark.parametrize(("fields", "expected"), HONOURED)
def test_parameter_is_honoured(mixtral: ServedModel, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    got = params(mixtral, **fields)
    assert {name: getattr(got, name) for name in expected} == expected


def test_the_checkpoints_default_sampling_is_used_and_reported(mixtral: ServedModel) -> None:
    defaults = SamplingDefaults(temperature=0.25, top_p=0.5, repetition_penalty=1.5)
    made = job(replace(mixtral, sampling_defaults=defaults))
    used = made.requests[0].sampling_params
    assert (used.temperature, used.top_p, used.repetition_penalty) == (0.25, 0.5, 1.5)
    start = made.writer.start()
    assert b'"temperature":0.25' in start
    assert b'"top_p":0.5' in start


PARENTS = {"verbosity": "text", "include_obfuscation": "stream_options"}
"""The objects that these parameters are fields of."""

HONOURED_HERE = {"tools", "tool_choice", "parallel_tool_calls"}


@pytest.mark.parametrize("name", [*UNSUPPORTED_BY_RESPONSES, *sorted(UNSUPPORTED.keys() - HONOURED_HERE)])
def test_known_parameter_is_refused_by_name_unless_its_value_changes_nothing(mixtral: ServedModel, name: str) -> None:
    def fields(value: Any) -> dict[str, Any]:
        return {PARENTS[name]: {name: value}} if name in PARENTS else {name: value}

    refused = ResponsesRequest.unsupported[name]
    for neutral in (None, *refused.accepted):
        job(mixtral, **fields(neutral))
        assert ignored_params(parse(**fields(neutral))) == []
    with pytest.raises(UnsupportedParameter, match=name) as caught:
        job(mixtral, **fields("something"))
    assert caught.value.param == (f"{PARENTS[name]}.{name}" if name in PARENTS else name)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"include": ["file_search_call.results"]}, "include"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input"),
        ({"tools": [SPACE, {**SPACE, "name": "other"}]}, "tools"),
        ({"tools": [{**SPACE, "tools": [{**FLAT, "name": f"f{n}"} for n in range(129)]}]}, "tools"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice"),
        ({"include": ["message.output_text.logprobs"], "tools": [FLAT]}, "include"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"input": [user("a"), {"type": "function_call_output", "call_id": "x", "output": ""}]}, "input[1].call_id"),
        ({"input": [user("a"), CALL, {**CALL, "arguments": "[]"}]}, "input[2].arguments"),
        ({"input": [user("a"), {**CALL, "name": "a b"}]}, "input[1].name"),
        ({"input": "naïve " * 2000}, "input"),
        ({"max_output_tokens": 4097}, "input"),
        ({"tools": [FLAT, FLAT]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"min_tokens": 6, "max_output_tokens": 5}, "min_tokens"),
    ],
)
def test_invalid_request_is_refused_by_the_field_of_this_api(
    mixtral: ServedModel, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        job(mixtral, **fields)
    assert caught.value.param == param


BAD: list[tuple[dict[str, Any], tuple[str | int, ...]]] = [
    ({"input": []}, ("input",)),
    ({"input": None}, ("input",)),
    ({"input": {}}, ("input",)),
    ({"input": ["Hi"]}, ("input", 0)),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, ("input", 0)),
    ({"input": [{"id": "msg_1"}]}, ("input", 0)),
    ({"input": [{"type": "computer_call", "id": "c"}]}, ("input", 0)),
    ({"input": [{"type": ["message"], "role": "user", "content": ""}]}, ("input", 0)),
    ({"max_output_tokens": 0}, ("max_output_tokens",)),
    ({"metadata": {"a": 1}}, ("metadata", "a")),
    ({"metadata": {str(number): "" for number in range(17)}}, ("metadata",)),
    ({"tools": [{"type": "custom", "name": "f"}]}, ("tools", 0, "a function", "type")),
    ({"tools": [NESTED]}, ("tools", 0, "a function", "name")),
    ({"tools": [{**SPACE, "tools": [NESTED]}]}, ("tools", 0, "a namespace", "tools", 0, "name")),
    ({"tools": ["f"]}, ("tools", 0, "a function")),
    ({"reasoning": {"summary": 3}}, ("reasoning", "summary")),
    ({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}}, ("tool_choice",)),
    ({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp"}]}}, ("tool_choice",)),
    ({"tool_choice": {"type": "function", "function": {"name": "weather"}}}, ("tool_choice",)),
    ({"text": {"format": {"type": "xml"}}}, ("text", "format", "type")),
    ({"instructions": 3}, ("instructions",)),
    ({"stop": ""}, ("stop", 0)),
]


@pytest.mark.parametrize(("fields", "path"), BAD)
def test_value_out_of_range_or_of_the_wrong_type_is_refused(
    fields: dict[str, Any], path: tuple[str | int, ...]
) -> None:
    with pytest.raises(ValidationError) as caught:
        parse(**fields)
    assert caught.value.errors()[0]["loc"] == path


def test_allowed_tools_are_those_of_the_prompt_and_are_returned(mixtral: ServedModel) -> None:
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "weather"}]}
    chosen = job(mixtral, tools=[{**FLAT, "name": "other"}, FLAT], tool_choice=choice)
    assert chosen.requests == job(mixtral, tools=[FLAT], tool_choice="required").requests
    assert b'"tool_choice":{"type":"allowed_tools","mode":"required","tools":[{' in chosen.writer.start()


def test_built_in_tools_are_reported_as_without_effect_and_what_needs_no_effect_is_not() -> None:
    tools = [{"type": "web_search", "search_context_size": "low"}, {**SPACE, "description": "d"}]
    assert ignored_params(parse(tools=tools)) == ["tools.web_search", "tools.description"]
    assert ignored_params(parse(reasoning={"effort": "low"}, include=["reasoning.encrypted_content"])) == []


def test_unknown_fields_are_reported_by_path() -> None:
    body = parse(service_tier="auto", text={"tone": "dry"}, input=[{**user("Hi"), "mood": 1}])
    assert sorted(ignored_params(body)) == ["input.mood", "service_tier", "text.tone"]


def constraint_of(model: ServedModel, **fields: Any) -> Any:
    return job(model, **fields).constraint


def test_text_format_gives_the_constraints_of_response_format(mixtral: ServedModel) -> None:
    schema = {"type": "json_schema", "name": "n", "strict": True, "schema": SCHEMA}
    assert constraint_of(mixtral, text={"format": schema}) == JsonSchema(schema=SCHEMA, param="text.format.schema")
    assert constraint_of(mixtral, text={"format": {"type": "json_object"}}) == JsonObject(param="text.format")
    assert constraint_of(mixtral, text={"format": {"type": "text"}}) is None
    assert constraint_of(mixtral, text={}) is None
    assert constraint_of(mixtral, guided_choice=["a"]) == Choice(choices=("a",), param="guided_choice")


@pytest.mark.parametrize("missing", ["name", "schema"])
def test_a_schema_needs_a_name(mixtral: ServedModel, missing: str) -> None:
    format_ = {"type": "json_schema", "name": "n", "schema": SCHEMA}
    del format_[missing]
    with pytest.raises(InvalidRequest) as caught:
        constraint_of(mixtral, text={"format": format_})
    assert caught.value.param == "text.format"


def test_two_constraints_are_refused_by_the_fields_of_this_api(mixtral: ServedModel) -> None:
    with pytest.raises(InvalidRequest, match=r"`text\.format` and `guided_regex`"):
        constraint_of(mixtral, text={"format": {"type": "json_object"}}, guided_regex="a")


def test_parameters_that_cannot_be_guided_are_refused_by_the_path_of_this_api(mixtral: ServedModel) -> None:
    with pytest.raises(InvalidRequest) as caught:
        constraint_of(mixtral, tools=[{**FLAT, "parameters": {"type": "array"}}])
    assert caught.value.param == "tools[0].parameters"
