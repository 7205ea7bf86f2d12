"""Every answer is valid by OpenAI's published types, in strict mode. Fields beyond them are listed here."""

import json
from collections.abc import Iterator
from typing import Any, TypeVar

import httpx
import pytest
from openai.pagination import SyncPage
from openai.types import Completion, ErrorObject, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from tests.frontend.conftest import CHAT, MODEL, body
from tests.frontend.fake_triton import Events, FakeTriton

COMPLETIONS = "/v1/completions"
MODEL_CARD = {"root", "parent", "max_model_len", "permission"}
BEYOND = {"stop_reason", "token_ids", "prompt_token_ids", "store", "bytes", *MODEL_CARD}
"""Fields that the published types do not declare: vLLM's own; `store`, which OpenAI's server sends too; and `bytes` of
a token in the events of /v1/responses."""

CALL = '[{"name": "add", "arguments": {"a": 1}}]'
FUNCTION: dict[str, Any] = {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}

ANY_EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)

Published = TypeVar("Published", bound=BaseModel)


def strictly(published: type[Published], data: str | bytes) -> Published:
    """The answer as OpenAI's type. Fails if a value needs conversion, or a field is neither declared nor in BEYOND."""
    answer = published.model_validate_json(data, strict=True)
    assert set(_unknown(answer)) <= BEYOND
    return answer


def _unknown(value: Any) -> Iterator[str]:
    """Names of the fields, at any depth, that the published types do not declare."""
    if isinstance(value, BaseModel):
        yield from value.model_extra or ()
        value = [getattr(value, name) for name in type(value).model_fields]
    if isinstance(value, list):
        for member in value:
            yield from _unknown(member)


CHAT_FIELDS = [
    {},
    {"logprobs": True, "n": 2},
    {"stop": "aus"},
    {"stop_token_ids": [21209], "return_token_ids": True},
    {"max_tokens": 2},
    {"tools": [{"type": "function", "function": FUNCTION}]},
    {"tools": [{"type": "function", "function": FUNCTION}], "tool_choice": "required"},
    {"response_format": {"type": "json_object"}},
    {"stream_options": {"include_usage": True}},
    {"stream_options": {"continuous_usage_stats": True, "include_usage": True}},
]


@pytest.fixture(autouse=True)
def _haus(triton: FakeTriton) -> None:
    triton.script = [Events([[6004], [21209]])]


@pytest.mark.parametrize("fields", CHAT_FIELDS, ids=json.dumps)
def test_chat_completion_has_the_published_type(http: httpx.Client, fields: dict[str, Any]) -> None:
    complete = {name: value for name, value in fields.items() if name != "stream_options"}
    answer = strictly(ChatCompletion, http.post(CHAT, json=body(**complete)).content)
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0


@pytest.mark.parametrize("fields", CHAT_FIELDS, ids=json.dumps)
def test_chat_completion_chunks_have_the_published_type(http: httpx.Client, fields: dict[str, Any]) -> None:
    chunks = [
        strictly(ChatCompletionChunk, data) for data in events_of(http.post(CHAT, json=body(stream=True, **fields)))
    ]
    assert any(choice.finish_reason for chunk in chunks for choice in chunk.choices)


def test_tool_calls_have_the_published_types(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [Events([[3 + byte for byte in f"[TOOL_CALLS] {CALL}".encode()]])]
    fields = body(tools=[{"type": "function", "function": FUNCTION}])
    [choice] = strictly(ChatCompletion, http.post(CHAT, json=fields).content).choices
    assert choice.finish_reason == "tool_calls"
    chunks = [
        strictly(ChatCompletionChunk, data) for data in events_of(http.post(CHAT, json=fields | {"stream": True}))
    ]
    assert any(choice.delta.tool_calls for chunk in chunks for choice in chunk.choices)


COMPLETION_FIELDS: list[dict[str, Any]] = [
    {},
    {"logprobs": 0},
    {"prompt": ["a", "b"], "n": 2},
    {"echo": True},
    {"stop": "aus", "return_token_ids": True},
    {"stream_options": {"include_usage": True}},
]


@pytest.mark.parametrize("fields", COMPLETION_FIELDS, ids=json.dumps)
def test_completion_has_the_published_type(http: httpx.Client, fields: dict[str, Any]) -> None:
    complete = {name: value for name, value in fields.items() if name != "stream_options"}
    assert strictly(Completion, http.post(COMPLETIONS, json={"model": MODEL, "prompt": "Hi", **complete}).content).usage


@pytest.mark.parametrize("fields", COMPLETION_FIELDS, ids=json.dumps)
def test_completion_chunks_have_the_published_type_but_for_the_finish_reason(
    http: httpx.Client, fields: dict[str, Any]
) -> None:
    """OpenAI's type requires a finish reason in every chunk; its server sends null, and so does this one."""
    for data in events_of(http.post(COMPLETIONS, json={"model": MODEL, "prompt": "Hi", "stream": True, **fields})):
        chunk = json.loads(data)
        for choice in chunk["choices"]:
            choice["finish_reason"] = choice["finish_reason"] or "stop"
        strictly(Completion, json.dumps(chunk))


RESPONSES_FIELDS: list[dict[str, Any]] = [
    {},
    {"include": ["message.output_text.logprobs"]},
    {"max_output_tokens": 2},
    {"instructions": "Antworte kurz.", "metadata": {"a": "b"}},
    {"tools": [{"type": "function", **FUNCTION}]},
    {"text": {"format": {"type": "json_schema", "name": "a", "schema": FUNCTION["parameters"]}}},
]


@pytest.mark.parametrize("fields", RESPONSES_FIELDS, ids=json.dumps)
def test_response_has_the_published_type(http: httpx.Client, fields: dict[str, Any]) -> None:
    answer = strictly(Response, http.post("/v1/responses", json={"model": MODEL, "input": "Hi", **fields}).content)
    assert answer.usage is not None
    assert answer.usage.output_tokens == 2


@pytest.mark.parametrize("fields", RESPONSES_FIELDS, ids=json.dumps)
def test_response_events_have_the_published_types_and_are_numbered(http: httpx.Client, fields: dict[str, Any]) -> None:
    fields = {"model": MODEL, "input": "Hi", "stream": True, **fields}
    events = http.post("/v1/responses", json=fields).text.split("\n\n")[:-1]
    parsed = [ANY_EVENT.validate_json(event.partition("data: ")[2], strict=True) for event in events]
    assert [f"event: {event.type}" for event in parsed] == [event.partition("\n")[0] for event in events]
    assert [event.sequence_number for event in parsed] == list(range(len(events)))
    assert parsed[-1].type in ("response.completed", "response.incomplete")
    assert {name for event in parsed for name in _unknown(event)} <= BEYOND


def events_of(response: httpx.Response) -> list[str]:
    """The data of each event before `[DONE]`."""
    *events, done, rest = response.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [event.removeprefix("data: ") for event in events]


def test_models_have_the_published_type(http: httpx.Client) -> None:
    assert len(strictly(SyncPage[Model], http.get("/v1/models").content).data) == 2
    assert strictly(Model, http.get("/v1/models/mixtral").content).id == "mixtral"


@pytest.mark.parametrize(
    ("method", "path", "fields"),
    [
        ("POST", CHAT, {"model": "gpt-4"}),
        ("POST", CHAT, {"temperature": 3}),
        ("POST", CHAT, {"n": 100}),
        ("GET", CHAT, {}),
        ("GET", "/nothing", {}),
    ],
    ids=str,
)
def test_errors_have_the_published_type_but_for_nulls(
    http: httpx.Client, method: str, path: str, fields: dict[str, Any]
) -> None:
    """OpenAI's type does not allow the null that its own server sends for `param` and `code`."""
    error = http.request(method, path, json=body(**fields)).json()["error"]
    published = {name: "" if value is None else value for name, value in error.items()}
    assert ErrorObject.model_validate(published, strict=True).message
    assert error["type"] == "invalid_request_error"
