"""The constraint of a body, compiled and sent to the engine as a grammar. Two constraints at once are refused."""

import json
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest

from frontend.errors import InvalidRequest, UnsupportedParameter
from frontend.guided_decoding import Choice, Constraint, Grammar, JsonObject, JsonSchema, Regex
from frontend.openai.chat.request import to_chat_job
from frontend.openai.chat.types import ChatCompletionRequest
from frontend.openai.reply import Reply
from frontend.text.served_model import ServedModel
from tests.frontend.conftest import CHAT, MODEL, body, error_of
from tests.frontend.fake_triton import Events, FakeTriton

SCHEMA = {"type": "object", "properties": {"a": {"enum": ["x"]}}, "required": ["a"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}


def constraint_of(model: ServedModel, **fields: Any) -> Constraint | None:
    parsed = ChatCompletionRequest.model_validate(body(**fields))
    return to_chat_job(parsed, model, Reply(id="cmpl-0", created=0, model="m"), seed=0).constraint


@pytest.mark.parametrize(
    ("fields", "constraint"),
    [
        ({}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, JsonObject(param="response_format")),
        ({"response_format": JSON_SCHEMA}, JsonSchema(schema=SCHEMA, param="response_format.json_schema.schema")),
        (
            {"response_format": {"type": "json_object", "schema": SCHEMA}},
            JsonSchema(schema=SCHEMA, param="response_format.schema"),
        ),
        (
            {"response_format": {"type": "json_schema", "schema": SCHEMA}},
            JsonSchema(schema=SCHEMA, param="response_format.schema"),
        ),
        ({"response_format": {"type": "json_object", "schema": {}}}, JsonObject(param="response_format")),
        ({"response_format": {"type": "json_object", "schema": None}}, JsonObject(param="response_format")),
        ({"guided_json": SCHEMA}, JsonSchema(schema=SCHEMA, param="guided_json")),
        ({"guided_json": json.dumps(SCHEMA)}, JsonSchema(schema=SCHEMA, param="guided_json")),
        ({"guided_regex": "a+"}, Regex(pattern="a+", param="guided_regex")),
        ({"guided_choice": ["a", "b"]}, Choice(choices=("a", "b"), param="guided_choice")),
        ({"guided_grammar": 'root ::= "a"'}, Grammar(ebnf='root ::= "a"', param="guided_grammar")),
        ({"structured_outputs": {"regex": "a"}}, Regex(pattern="a", param="structured_outputs.regex")),
        ({"structured_outputs": {"json": SCHEMA}}, JsonSchema(schema=SCHEMA, param="structured_outputs.json")),
        ({"structured_outputs": {"json_object": True}}, JsonObject(param="structured_outputs.json_object")),
        ({"structured_outputs": {"json_object": False}}, None),
        ({"tools": [TOOL], "tool_choice": "none", "guided_regex": "a"}, Regex(pattern="a", param="guided_regex")),
    ],
)
def test_constraint_names_the_field_that_it_came_from(
    mixtral: ServedModel, fields: dict[str, Any], constraint: Constraint | None
) -> None:
    assert constraint_of(mixtral, **fields) == constraint


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice"),
        ({"response_format": {"type": "json_object"}, "guided_regex": "a"}, "guided_regex"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs.choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "text", "schema": SCHEMA}}, "response_format.schema"),
        ({"response_format": {**JSON_SCHEMA, "schema": SCHEMA}}, "response_format.schema"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_json": "3"}, "guided_json"),
        ({"tools": [TOOL], "guided_grammar": 'root ::= "a"'}, "guided_grammar"),
    ],
)
def test_wrong_or_second_constraint_is_refused_by_field(
    mixtral: ServedModel, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        constraint_of(mixtral, **fields)
    assert caught.value.param == param


def test_without_guided_decoding_constraints_are_refused_and_auto_calls_are_not(mixtral: ServedModel) -> None:
    unguided = replace(mixtral, engine=replace(mixtral.engine, honours=mixtral.engine.honours - {"guide"}))
    assert constraint_of(unguided, tools=[TOOL]) is None
    for fields in ({"guided_regex": "a"}, {"tools": [TOOL], "tool_choice": "required"}):
        with pytest.raises(UnsupportedParameter):
            constraint_of(unguided, **fields)


GUIDED: list[tuple[str, dict[str, Any]]] = [
    (CHAT, body(response_format={"type": "json_object"})),
    (CHAT, body(guided_choice=["a"])),
    (CHAT, body(tools=[TOOL])),
    (CHAT, body(tools=[TOOL], tool_choice="required")),
    ("/v1/completions", {"model": MODEL, "prompt": "Hi", "guided_regex": "a+"}),
    ("/v1/responses", {"model": MODEL, "input": "Hi", "text": {"format": {"type": "json_object"}}}),
]
"""A guided request of each route, tools that guide included."""


@pytest.mark.parametrize(("path", "fields"), GUIDED)
@pytest.mark.parametrize("forbids_end", [{"ignore_eos": True}, {"min_tokens": 8}])
def test_what_forbids_the_end_of_a_grammar_is_refused(
    http: httpx.Client, triton: FakeTriton, path: str, fields: dict[str, Any], forbids_end: dict[str, Any]
) -> None:
    """TensorRT-LLM would end all active requests where the grammar has ended and the answer goes on."""
    (param,) = forbids_end
    error = error_of(http.post(path, json=fields | forbids_end), 400)
    assert error["param"] == param
    assert "decides where the answer ends" in error["message"]
    assert triton.requests == []


def test_a_free_answer_may_ignore_its_end(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [Events([[6004]])]
    assert http.post(CHAT, json=body(ignore_eos=True, min_tokens=1, max_tokens=1)).status_code == 200


def test_the_engine_gets_the_grammar_that_was_compiled(http: httpx.Client, triton: FakeTriton) -> None:
    assert http.post(CHAT, json=body(guided_choice=["ja", "nein"])).status_code == 200
    (request,) = triton.requests
    assert request["guided_decoding_guide_type"] == "ebnf_grammar"
    assert "ja" in request["guided_decoding_guide"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"guided_regex": "("}, "guided_regex"),
        ({"guided_json": {"type": 3}}, "guided_json"),
        ({"tools": [{**TOOL, "function": {"name": "f", "parameters": {"not": {}}, "strict": True}}]}, "tools[0]"),
    ],
)
def test_constraint_that_cannot_be_compiled_never_reaches_the_engine(
    http: httpx.Client, triton: FakeTriton, fields: dict[str, Any], param: str
) -> None:
    assert str(error_of(http.post(CHAT, json=body(**fields)), 400)["param"]).startswith(param)
    assert triton.requests == []


def test_openais_client_reads_the_calls(client: openai.OpenAI, triton: FakeTriton) -> None:
    text = ' [{"name": "f", "arguments": {"a": "x"}}]'
    pieces = text.encode()
    triton.script = [Events([[3 + byte] for byte in pieces])]  # a token for each byte
    answer = client.chat.completions.create(**body(tools=[TOOL], tool_choice="required"))
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("f", {"a": "x"})
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (None, "tool_calls")
    chunks = list(client.chat.completions.create(**body(tools=[TOOL], tool_choice="required", stream=True)))
    deltas = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or []]
    assert deltas[0].function is not None
    assert deltas[0].function.name == "f"
    arguments = "".join(delta.function.arguments or "" for delta in deltas if delta.function)
    assert json.loads(arguments) == {"a": "x"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
