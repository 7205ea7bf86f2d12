"""/v1/messages over HTTP: every error has Anthropic's shape, whichever part of the server answers."""

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import httpx
import limits
import pytest

from frontend.server.caller_limits import CallerLimits
from frontend.server.drain import Drain
from frontend.server.middleware.stack import with_middleware
from tests.frontend.conftest import MAX_BODY_BYTES, MODEL, Running, error_of, messages_error_of
from tests.frontend.fake_triton import Events, FakeTriton

MESSAGES = "/v1/messages"
COUNT = f"{MESSAGES}/count_tokens"


def body(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}], **fields}


@pytest.mark.parametrize("path", [MESSAGES, COUNT])
@pytest.mark.parametrize(
    ("fields", "status", "kind", "sentence"),
    [
        ({"model": "gpt-4"}, 404, "not_found_error", "The model `gpt-4` does not exist."),
        ({"messages": []}, 400, "invalid_request_error", "Invalid `messages`: List should have at least 1 item"),
        ({"messages": [{"role": "tool", "content": "a"}]}, 400, "invalid_request_error", "`messages[0].role`"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, 400, "invalid_request_error", "`tools[0].name`"),
        ({"tools": [{"name": "f"}]}, 400, "invalid_request_error", "Invalid `tools[0].input_schema`: Field required"),
        ({"tools": [{"type": "function", "name": "f", "input_schema": {}}]}, 400, "invalid_request_error", "[0].type`"),
        ({"thread": {"type": "create"}}, 400, "invalid_request_error", "`thread` is not supported"),
    ],
)
def test_what_is_wrong_with_a_body(
    http: httpx.Client, path: str, fields: dict[str, Any], status: int, kind: str, sentence: str
) -> None:
    error = messages_error_of(http.post(path, json=body(**fields)), status)
    assert error["type"] == kind
    assert sentence in error["message"]


def test_max_tokens_is_required(http: httpx.Client) -> None:
    sent = body()
    del sent["max_tokens"]
    error = messages_error_of(http.post(MESSAGES, json=sent), 400)
    assert error["message"] == "Invalid `max_tokens`: Field required."
    assert http.post(COUNT, json=sent).status_code == 200


def test_a_body_that_is_too_large_or_no_json(http: httpx.Client) -> None:
    large = body(system="a" * MAX_BODY_BYTES)
    assert messages_error_of(http.post(MESSAGES, json=large), 413)["type"] == "request_too_large"
    plain = http.post(MESSAGES, content="{}", headers={"content-type": "text/plain"})
    assert messages_error_of(plain, 415)["type"] == "invalid_request_error"
    assert "that can be read" in messages_error_of(http.post(MESSAGES, json=3), 400)["message"]


def test_a_body_of_too_many_blocks_is_refused_before_they_are_built(http: httpx.Client) -> None:
    many = body(messages=[{"role": "user", "content": [{}] * 40_000}])
    assert "`messages` is too long" in messages_error_of(http.post(MESSAGES, json=many), 400)["message"]


def test_other_methods_and_paths(http: httpx.Client) -> None:
    assert messages_error_of(http.get(MESSAGES), 405)["type"] == "invalid_request_error"
    assert messages_error_of(http.get(f"{MESSAGES}/batches"), 404)["type"] == "not_found_error"
    assert error_of(http.get("/v1/messagesx"), 404)["type"] == "invalid_request_error"


def test_a_request_without_a_key(guarded: httpx.Client) -> None:
    assert messages_error_of(guarded.post(MESSAGES, json=body()), 401)["type"] == "authentication_error"


def test_the_request_id_has_anthropics_name_too(http: httpx.Client) -> None:
    response = http.post(MESSAGES, json=body(), headers={"x-request-id": "mine"})
    assert (response.headers["request-id"], response.headers["x-request-id"]) == ("mine", "mine")
    assert "request-id" not in http.get("/v1/models").headers


def test_the_query_that_anthropics_beta_sends_changes_nothing(http: httpx.Client) -> None:
    assert http.post(f"{MESSAGES}?beta=true", json=body()).status_code == 200


def test_bytes_of_a_stream(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [Events([[6004]])]
    events = http.post(MESSAGES, json=body(stream=True)).text.split("\n\n")
    assert events.pop() == ""
    names = [event.partition("\n")[0].removeprefix("event: ") for event in events]
    assert names == [
        "message_start", "content_block_start", "ping", "content_block_delta", "content_block_stop", "message_delta",
        "message_stop",
    ]  # fmt: skip
    assert [json.loads(event.partition("\ndata: ")[2])["type"] for event in events] == names
    assert events[3] == (
        'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        '"delta":{"type":"text_delta","text":" Ein"}}'
    )


def test_metrics_count_the_tokens_and_the_log_names_the_route(
    frontend: Running, http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    def generated() -> float:
        [line] = [
            row for row in http.get("/metrics").text.splitlines() if row.startswith("vllm:generation_tokens_total")
        ]
        return float(line.split()[-1])

    caplog.set_level("INFO")
    frontend.triton.script = [Events([[6004], [21209]])]
    before = generated()
    answer = http.post(MESSAGES, json=body()).json()
    assert generated() == before + 2
    lines = [record.getMessage() for record in caplog.records]
    assert [line for line in lines if line.startswith(f"Received request {answer['id']}")]
    assert [
        line for line in lines if line.startswith(f"Finished request {answer['id']}") and "POST /v1/messages" in line
    ]


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 120))


async def unreachable(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("the middleware let it through")


def client_of(**options: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(with_middleware(unreachable, **options))
    return httpx.AsyncClient(transport=transport, base_url="http://test")


def test_a_server_that_ends_is_overloaded() -> None:
    async def scenario() -> None:
        drain = Drain()
        drain.begin(30)
        async with client_of(drain=drain) as client:
            response = await client.post(MESSAGES, json=body())
        assert messages_error_of(response, 503)["type"] == "overloaded_error"
        assert response.headers["retry-after"]

    run(scenario())


def test_a_caller_over_its_rate() -> None:
    async def scenario() -> None:
        limits_of_all = CallerLimits(limits.parse("1/day"), max_requests=0)
        async with client_of(limits=limits_of_all) as client:
            response = await client.post(MESSAGES, json=body())
        assert messages_error_of(response, 429)["type"] == "rate_limit_error"

    run(scenario())
