"""HTTP as a client sees it: JSON bodies and streams to the byte, statuses, error bodies."""

import gzip
import json
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from frontend.server.app import create_app
from tests.frontend.conftest import CHAT, MAX_BODY_BYTES, MODEL, Running, body, error_of
from tests.frontend.fake_triton import Endless, Events, FakeTriton

FIRST_REQUEST = {
    "model": MODEL,
    "messages": [
        {"role": "user", "content": "You are a helpful assistant."},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Was ist ein Haus?"},
    ],
}
HAUS = Events([[6004], [21209]])


def test_json_body_has_vllms_fields_in_vllms_order(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [Events([[6004], [21209], []])]
    response = http.post(CHAT, json=FIRST_REQUEST)
    answer = response.json()
    assert response.headers["content-type"] == "application/json"
    assert answer["id"].startswith("cmpl-")
    assert len(answer["id"]) == len("cmpl-") + 32
    assert response.text == (
        f'{{"id":"{answer["id"]}","object":"chat.completion","created":{answer["created"]},"model":"{MODEL}",'
        '"choices":[{"index":0,"message":{"role":"assistant","content":" Ein Haus"},"logprobs":null,'
        '"finish_reason":"stop","stop_reason":null}],'
        '"usage":{"prompt_tokens":29,"total_tokens":31,"completion_tokens":2}}'
    )
    assert triton.requests[0]["input_ids"][:4] == [1, 733, 16289, 28793]


def test_stream_has_openais_shape_to_the_byte(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    response = http.post(CHAT, json=body(stream=True, stop="\n", stream_options={"include_usage": True}))
    first = json.loads(response.text.split("\n\n")[0].removeprefix("data: "))
    head = (
        f'data: {{"id":"{first["id"]}","object":"chat.completion.chunk","created":{first["created"]},"model":"{MODEL}",'
        '"choices":['
    )
    nothing = '"logprobs":null,"finish_reason":null}],"usage":null}\n\n'
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.text == (
        f'{head}{{"index":0,"delta":{{"role":"assistant","content":""}},{nothing}'
        f'{head}{{"index":0,"delta":{{"content":" Ein"}},{nothing}'
        f'{head}{{"index":0,"delta":{{"content":" Haus"}},{nothing}'
        f'{head}{{"index":0,"delta":{{}},"logprobs":null,"finish_reason":"stop"}}],"usage":null}}\n\n'
        f'{head}],"usage":{{"prompt_tokens":9,"total_tokens":11,"completion_tokens":2}}}}\n\n'
        "data: [DONE]\n\n"
    )


def test_stream_without_usage_does_not_mention_it(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    assert "usage" not in http.post(CHAT, json=body(stream=True)).text


@pytest.mark.parametrize("stream", [False, True])
def test_bytes_and_events_may_arrive_in_any_pieces(http: httpx.Client, triton: FakeTriton, stream: bool) -> None:
    emoji = [[3 + byte] for byte in "🚀".encode()]
    triton.script = [Events([[6004], *emoji, [], [21209, 6004]], bytes_per_write=7)]
    response = http.post(CHAT, json=body(stream=stream))
    assert text_of(response, stream) == " Ein🚀 Haus Ein"


def text_of(response: httpx.Response, stream: bool) -> str:
    if not stream:
        return str(response.json()["choices"][0]["message"]["content"])
    events = [event.removeprefix("data: ") for event in response.text.split("\n\n") if event]
    assert events.pop() == "[DONE]"
    return "".join(json.loads(event)["choices"][0]["delta"].get("content", "") for event in events)


@pytest.mark.parametrize("stream", [False, True])
def test_stop_string_ends_the_answer_and_cancels_the_engine(
    http: httpx.Client, frontend: Running, stream: bool
) -> None:
    frontend.triton.script = [Events([[6004], [21209], [6004]]), Endless(21209)]
    response = http.post(CHAT, json=body(stream=stream, stop=["Haus Ein"]))
    assert text_of(response, stream) == " Ein "
    assert '"finish_reason":"stop","stop_reason":"Haus Ein"' in response.text
    frontend.wait_until(lambda: frontend.triton.num_cancelled == 1)


def test_stop_strings_are_not_sent_to_the_engine(http: httpx.Client, triton: FakeTriton) -> None:
    """TensorRT-LLM's stop words match tokens, not text, and have leaked memory."""
    for stop in ({}, {"stop": ["Haus", "\n\n"]}):
        assert http.post(CHAT, json=body(seed=1, **stop)).status_code == 200
    without, with_stop = triton.requests
    assert with_stop == without


@pytest.mark.parametrize("stream", [False, True])
def test_answer_cut_by_max_tokens_says_length(http: httpx.Client, triton: FakeTriton, stream: bool) -> None:
    triton.script = [HAUS]
    assert '"finish_reason":"length"' in http.post(CHAT, json=body(stream=stream, max_tokens=2)).text


def test_answer_may_be_empty(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [Events([[]])]
    answer = http.post(CHAT, json=body()).json()
    assert (answer["choices"][0]["message"]["content"], answer["usage"]["completion_tokens"]) == ("", 0)


def test_requests_without_a_seed_get_different_ones(http: httpx.Client, triton: FakeTriton) -> None:
    for _ in range(2):
        http.post(CHAT, json=body())
    assert len({request["seed"] for request in triton.requests}) == 2


@pytest.mark.parametrize("fields", [{}, {"model": None}])
def test_the_model_may_be_left_out_as_one_is_served(http: httpx.Client, fields: dict[str, None]) -> None:
    for path, more in (
        (CHAT, {"messages": body()["messages"]}),
        ("/v1/completions", {"prompt": "Hi"}),
        ("/v1/responses", {"input": "Hi"}),
    ):
        assert http.post(path, json={**more, **fields}).json()["model"] == MODEL
    render = http.post(f"{CHAT}/render", json={"messages": body()["messages"], **fields})
    assert render.status_code == 200


def test_model_cards_have_vllms_fields(http: httpx.Client) -> None:
    _, alias = http.get("/v1/models").json()["data"]
    [permission] = alias.pop("permission")
    assert alias == {
        "id": "mixtral",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "mixtral-triton",
        "root": MODEL,
        "parent": None,
        "max_model_len": 4096,
    }
    assert permission.pop("id").startswith("modelperm-")
    assert permission == {
        "object": "model_permission",
        "created": 1_700_000_000,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }


def test_unknown_model_is_404_and_lists_what_exists(http: httpx.Client) -> None:
    error = error_of(http.post(CHAT, json=body(model="gpt-4")), 404)
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert f"`{MODEL}`, `mixtral`" in error["message"]


@pytest.mark.parametrize(
    ("content", "param"),
    [
        (b"{", None),
        (b"", None),
        (b"[]", None),
        (b"[" * 100_000, None),
        (b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}', None),
        (b'{"model": "\xff"}', None),
        (b'{"model": "m", "messages": [{"role": "user", "content": "a"}], "temperature": NaN}', "temperature"),
        (b'{"model": 3, "messages": [{"role": "user", "content": "a"}]}', "model"),
        (b'{"model": "m"}', "messages"),
        (b'{"model": "m", "messages": [{"role": "pope", "content": "a"}]}', "messages[0].role"),
        (b'{"model": "m", "messages": [{"role": "user", "content": 3}]}', "messages[0].content"),
        (b'{"model": "m", "messages": [{"role": "user", "content": "a"}], "stop": ["a", 3]}', "stop[1]"),
    ],
)
def test_body_that_cannot_be_read_is_400_and_names_the_field(
    http: httpx.Client, content: bytes, param: str | None
) -> None:
    error = error_of(http.post(CHAT, content=content, headers={"content-type": "application/json"}), 400)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


def test_content_type_must_be_json_and_not_be_missing(http: httpx.Client) -> None:
    content = json.dumps(body()).encode()
    error_of(http.post(CHAT, content=content), 415)
    error_of(http.post(CHAT, content=content, headers={"content-type": "text/plain"}), 415)


def test_compressed_body_is_415_and_one_that_is_not_is_read(http: httpx.Client) -> None:
    content, json_type = json.dumps(body()).encode(), {"content-type": "application/json"}
    response = http.post(CHAT, content=gzip.compress(content), headers={**json_type, "content-encoding": "gzip"})
    error = error_of(response, 415)
    assert error["message"] == "The body must be sent as it is, without Content-Encoding: gzip."
    assert response.headers["accept-encoding"] == "identity"
    assert http.post(CHAT, content=content, headers={**json_type, "content-encoding": "identity"}).status_code == 200


def test_body_over_the_limit_is_413(http: httpx.Client) -> None:
    content = b" " * (MAX_BODY_BYTES + 1)
    error_of(http.post(CHAT, content=content, headers={"content-type": "application/json"}), 413)


def test_long_body_under_the_limit_is_answered(http: httpx.Client) -> None:
    answer = http.post(CHAT, json=body(padding="x" * (MAX_BODY_BYTES // 2)))
    assert answer.status_code == 200


def test_unknown_route_and_wrong_method_have_the_same_error_body(http: httpx.Client) -> None:
    error_of(http.get("/v1/nothing"), 404)
    error_of(http.get(CHAT), 405)


def test_ignored_fields_are_listed_in_a_header_percent_encoded(http: httpx.Client) -> None:
    response = http.post(CHAT, json=body(**{"foo": 1, "a\r\nx: y, ü": 2}))
    assert response.status_code == 200
    assert response.headers["x-ignored-params"] == "foo, a%0D%0Ax%3A%20y%2C%20%C3%BC"


def test_unsupported_parameter_is_400_by_name(http: httpx.Client, triton: FakeTriton) -> None:
    error = error_of(http.post(CHAT, json=body(best_of=2)), 400)
    assert (error["param"], error["code"]) == ("best_of", "unsupported_parameter")
    assert triton.requests == []


def test_models_are_listed_and_found_by_name_with_slashes(http: httpx.Client) -> None:
    cards = http.get("/v1/models").json()
    assert [card["id"] for card in cards["data"]] == [MODEL, "mixtral"]
    assert http.get(f"/v1/models/{MODEL}").json() == cards["data"][0]
    assert http.get("/v1/models/mixtral").json()["max_model_len"] == 4096
    assert error_of(http.get("/v1/models/gpt-4"), 404)["code"] == "model_not_found"


def test_a_prefix_of_the_proxy_is_in_the_api_s_description() -> None:
    service: Any = SimpleNamespace(model_names=("mixtral",))
    with TestClient(create_app(service, root_path="/llm")) as client:
        assert client.get("/openapi.json").json()["servers"] == [{"url": "/llm"}]


def test_documentation_describes_the_body_and_the_errors(http: httpx.Client) -> None:
    assert http.get("/docs").status_code == 200
    description = http.get("/openapi.json").json()
    operation = description["paths"][CHAT]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
    assert "messages" in description["components"]["schemas"][schema]["required"]
    assert "422" not in operation["responses"]
