"""OpenAI's own client uses /v1/responses unchanged, and every response is valid for its types."""

import json
from collections.abc import Sequence
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import FunctionToolParam, Response, ResponseFunctionToolCall, ResponseInputParam
from pydantic import BaseModel

from frontend.text.served_model import ServedModel
from tests.frontend.conftest import MODEL, error_of
from tests.frontend.fake_triton import Events, FakeTriton, Step, log_prob_of

RESPONSES = "/v1/responses"
HAUS = Events([[6004], [21209]], pause_s=0.02)
WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "weather",
    "description": None,
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": None,
}
TWO_CALLS = '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Bonn"}}, {"name": "weather", "arguments": {}}]'


def body(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "input": "Was ist ein Haus?", **fields}


def validated(answer: dict[str, Any]) -> Response:
    """The response as OpenAI's type: no field unknown, none missing, none of a wrong type.

    OpenAI's responses have `store`, and its type does not.
    """
    assert answer.pop("store") is False
    return Response.model_validate(answer, strict=True, extra="forbid")


def tokens_of(model: ServedModel, text: str) -> list[Step]:
    """A script of an engine that generates this text, token by token."""
    return [Events([[token_id] for token_id in model.tokenizer.encode_text(text, add_special_tokens=False)])]


def test_answer(client: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    answer = client.responses.create(model=MODEL, input="Was ist ein Haus?", temperature=0)
    assert (answer.output_text, answer.status) == (" Ein Haus", "completed")
    assert answer.id.startswith("resp_")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.input_tokens + 2
    assert triton.requests[0]["runtime_top_k"] == 1


FULL: dict[str, Any] = {
    "instructions": "Kurz.", "max_output_tokens": 2, "metadata": {"a": "b"}, "user": "u", "top_p": 0.5,
    "include": ["message.output_text.logprobs"], "tools": [WEATHER], "parallel_tool_calls": False,
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}},
    "tool_choice": "none", "truncation": "disabled", "store": False, "background": False, "max_tool_calls": 3,
}  # fmt: skip


@pytest.mark.parametrize("fields", [{}, FULL, {"tools": [WEATHER], "tool_choice": "auto"}])
def test_response_is_valid_for_openais_type_and_returns_the_requests_fields(
    http: httpx.Client, triton: FakeTriton, fields: dict[str, Any]
) -> None:
    triton.script = [HAUS]
    answer = http.post(RESPONSES, json=body(**fields)).json()
    returned = {name: value for name, value in fields.items() if name != "include"}
    assert {name: answer[name] for name in returned} == returned
    validated(answer)


def test_limit_and_log_probabilities_are_reported(client: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    answer = client.responses.create(**body(max_output_tokens=2, include=["message.output_text.logprobs"]))
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    [message] = answer.output
    assert message.type == "message"
    [part] = message.content
    assert part.type == "output_text"
    assert [(logprob.token, logprob.logprob) for logprob in part.logprobs or ()] == [
        (" Ein", log_prob_of(6004)),
        (" Haus", log_prob_of(21209)),
    ]


def test_stream(client: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    events = list(client.responses.create(**body(stream=True)))
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == [*range(10)]
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == " Ein Haus"


def test_stream_helper(client: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    with client.responses.stream(model=MODEL, input="Was ist ein Haus?") as stream:
        snapshots = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        assert snapshots == [" Ein", " Ein Haus"]
        assert stream.get_final_response().output_text == " Ein Haus"


class House(BaseModel):
    """The type of a parsed answer."""

    rooms: int


def test_parse(client: openai.OpenAI, triton: FakeTriton, mixtral: ServedModel) -> None:
    triton.script = tokens_of(mixtral, '{"rooms": 3}')
    answer = client.responses.parse(model=MODEL, input="Was ist ein Haus?", text_format=House)
    assert answer.output_parsed == House(rooms=3)
    with client.responses.stream(model=MODEL, input="Was ist ein Haus?", text_format=House) as stream:
        assert stream.get_final_response().output_parsed == House(rooms=3)
    assert triton.requests[0]["guided_decoding_guide_type"] == "ebnf_grammar"


def calls_of(items: Sequence[Any]) -> list[ResponseFunctionToolCall]:
    return [item for item in items if isinstance(item, ResponseFunctionToolCall)]


def test_calls_can_be_sent_back_with_their_results(
    client: openai.OpenAI, triton: FakeTriton, mixtral: ServedModel
) -> None:
    triton.script = tokens_of(mixtral, f"Moment. {TWO_CALLS}")
    answer = client.responses.create(model=MODEL, input="Wetter?", tools=[WEATHER])
    assert answer.output_text.strip() == "Moment."
    calls = calls_of(answer.output)
    assert [json.loads(call.arguments) for call in calls] == [{"city": "Bonn"}, {}]
    assert all(call.id is not None and call.id.startswith("fc_") for call in calls)
    history: ResponseInputParam = [{"role": "user", "content": "Wetter?"}]
    history += answer.output  # type: ignore[arg-type]  # as in OpenAI's guide to function calling
    history += [{"type": "function_call_output", "call_id": call.call_id, "output": "sun"} for call in calls]
    triton.script = [HAUS]
    assert client.responses.create(model=MODEL, input=history, tools=[WEATHER]).output_text == " Ein Haus"
    prompt = mixtral.tokenizer.decode(triton.requests[-1]["input_ids"])
    assert TWO_CALLS in prompt
    assert prompt.count('[TOOL_RESULTS] {"name": "weather", "content": "sun"}') == 2


def test_a_call_of_a_function_in_a_namespace_says_so(
    http: httpx.Client, triton: FakeTriton, mixtral: ServedModel
) -> None:
    """A body as Codex sends it."""
    triton.script = tokens_of(mixtral, TWO_CALLS)
    fields = body(
        tools=[
            {"type": "namespace", "name": "mcp__sky", "description": "d", "tools": [WEATHER]},
            {"type": "web_search"},
        ],
        reasoning={"summary": "auto"},
        include=["reasoning.encrypted_content"],
        store=False,
    )
    response = http.post(RESPONSES, json=fields)
    assert response.headers["x-ignored-params"] == "tools.description, tools.web_search"
    calls = calls_of(validated(response.json()).output)
    assert [(call.name, call.namespace) for call in calls] == [("weather", "mcp__sky")] * 2
    events = http.post(RESPONSES, json={**fields, "stream": True}).text
    assert events.count('"name":"weather","namespace":"mcp__sky"') == 6


def test_calls_in_a_stream(client: openai.OpenAI, triton: FakeTriton, mixtral: ServedModel) -> None:
    triton.script = tokens_of(mixtral, TWO_CALLS)
    with client.responses.stream(model=MODEL, input="Wetter?", tools=[WEATHER]) as stream:
        types = [event.type for event in stream]
        answer = stream.get_final_response()
    assert types.count("response.output_item.added") == types.count("response.output_item.done") == 2
    assert types.count("response.function_call_arguments.done") == 2
    assert [call.arguments for call in calls_of(answer.output)] == ['{"city": "Bonn"}', "{}"]


def test_arguments_alone_are_a_call_of_the_named_function(
    client: openai.OpenAI, triton: FakeTriton, mixtral: ServedModel
) -> None:
    triton.script = tokens_of(mixtral, '{"city": "Bonn"}')
    answer = client.responses.create(
        model=MODEL, input="Wetter?", tools=[WEATHER], tool_choice={"type": "function", "name": "weather"}
    )
    [call] = calls_of(answer.output)
    assert (call.name, call.arguments, answer.status) == ("weather", '{"city": "Bonn"}', "completed")


def test_engine_that_fails_before_the_first_token_is_a_status(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [Events(["boom"])]
    assert error_of(http.post(RESPONSES, json=body(stream=True)), 500)["type"] == "server_error"


def test_engine_that_fails_later_is_the_last_event(client: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [Events([[6004]], pause_s=0.1), Events(["boom"])]
    *_, last = client.responses.create(**body(stream=True))
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert last.response.error.code == "server_error"
    assert "boom" not in last.response.error.message
    assert last.response.output_text == " Ein"


DEPTH = 190
"""The JSON of a request may be nested up to 200 deep."""


@pytest.mark.parametrize("stream", [False, True])
def test_deepest_schema_that_a_request_can_have_is_returned(http: httpx.Client, stream: bool) -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(DEPTH):
        schema = {"not": schema}
    tool = {"type": "function", "name": "f", "parameters": {"type": "object", "x": schema}}
    response = http.post(RESPONSES, json=body(tools=[tool], tool_choice="none", stream=stream))
    assert response.status_code == 200
    assert response.text.count('{"not":') >= DEPTH


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"store": True}, "store"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": "function_call", "call_id": "a", "name": 3}]}, "input[0].name"),
        ({"input": 3}, "input"),
        ({"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "no"}}}}, "text.format.schema"),
        ({"tools": [{**WEATHER, "parameters": {"properties": 3}, "strict": True}]}, "tools[0].parameters"),
    ],
)
def test_refusals_name_the_field_by_its_path(client: openai.OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**body(extra_body=fields))
    assert caught.value.param == param


def test_unknown_fields_are_reported_and_unknown_models_refused(http: httpx.Client) -> None:
    response = http.post(RESPONSES, json=body(service_tier="auto"))
    assert response.headers["x-ignored-params"] == "service_tier"
    assert error_of(http.post(RESPONSES, json=body(model="gpt-4")), 404)["code"] == "model_not_found"
