"""The error of an invalid request names the field and what it accepts."""

from typing import Any

import httpx
import pytest

from tests.frontend.conftest import CHAT, MAX_QUEUE_LENGTH, body, error_of
from tests.frontend.fake_triton import FakeTriton

COMPLETIONS = "/v1/completions"
PROMPT = "Input should be a string, a list of strings, token ids, or a list of lists of token ids"
SCHEMA = "Input should be a JSON Schema: an object, true, false, or one of these as a string"


@pytest.mark.parametrize(
    ("path", "fields", "param", "sentence"),
    [
        (COMPLETIONS, {"prompt": 3}, "prompt", PROMPT),
        (COMPLETIONS, {"prompt": None}, "prompt", PROMPT),
        (COMPLETIONS, {"prompt": []}, "prompt", PROMPT),
        (COMPLETIONS, {"prompt": [1, "a"]}, "prompt", PROMPT),
        (COMPLETIONS, {"prompt": ["a", 1]}, "prompt", PROMPT),
        (COMPLETIONS, {"prompt": [[1], []]}, "prompt", PROMPT),
        (COMPLETIONS, {"prompt": [[-1]]}, "prompt", PROMPT),
        (COMPLETIONS, {"prompt": "a", "logprobs": "a"}, "logprobs", "Input should be a valid integer"),
        (CHAT, {"guided_json": 3}, "guided_json", SCHEMA),
        (CHAT, {"structured_outputs": {"json": 3}}, "structured_outputs.json", SCHEMA),
        (CHAT, {"logit_bias": {"7": 1, "a": 3}}, "logit_bias", "Keys should be token ids; found 'a'"),
        (CHAT, {"logit_bias": {"²": 3}}, "logit_bias", "Keys should be token ids"),
        (CHAT, {"logit_bias": {"１": 3}}, "logit_bias", "Keys should be token ids"),
        (CHAT, {"logit_bias": {"9" * 5000: 3}}, "logit_bias", "Keys should be token ids"),
        (CHAT, {"logit_bias": {"1": 101}}, "logit_bias[1]", "Input should be less than or equal to 100"),
        (CHAT, {"logit_bias": {"32000": 1}}, "logit_bias", "accepted: token ids 0 to 31999"),
        (CHAT, {"response_format": {"type": "json_object", "schema": 123}}, "response_format.schema", "an object"),
        (CHAT, {"response_format": {"type": "text", "schema": {}}}, "response_format.schema", "`json_object` and"),
        (CHAT, {"prompt_logprobs": 0, "stream": True}, "prompt_logprobs", "needs `stream` to be false"),
        (CHAT, {"top_logprobs": 2}, "top_logprobs", "needs `logprobs` to be true"),
        (CHAT, {"messages": [{"role": "user", "content": ["a"]}]}, "messages[0].content[0]", "should be an object"),
        (CHAT, {"tool_choice": "x"}, "tool_choice", "found 'x'"),
        ("/tokenize", {"messages": None}, None, "Send one of `prompt` and `messages`"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_the_error_names_the_field_and_what_it_accepts(
    http: httpx.Client, path: str, fields: dict[str, Any], param: str | None, sentence: str
) -> None:
    error = error_of(http.post(path, json=body(**fields)), 400)
    assert error["param"] == param
    assert sentence in error["message"]
    assert len(error["message"]) < 300


def test_an_integer_beyond_64_bits_in_a_schema_is_refused(http: httpx.Client) -> None:
    function = {"name": "f", "parameters": {"type": "object", "maxProperties": 2**70}}
    error = error_of(http.post(CHAT, json=body(tools=[{"type": "function", "function": function}])), 400)
    assert error["param"] == "tools[0].function.parameters"
    assert "Integer exceeds 64-bit range" in error["message"]


def test_more_answers_than_an_idle_server_takes_are_400_and_not_429(http: httpx.Client, triton: FakeTriton) -> None:
    capacity = triton.max_batch_size + MAX_QUEUE_LENGTH
    assert http.post(CHAT, json=body(n=capacity)).status_code == 200
    error = error_of(http.post(CHAT, json=body(n=capacity + 1)), 400)
    assert error["param"] == "n"
    assert str(capacity) in error["message"]
    prompts = {"model": "mixtral", "prompt": ["a"] * (capacity + 1)}
    assert error_of(http.post(COMPLETIONS, json=prompts), 400)["param"] == "n"


@pytest.mark.parametrize(("method", "path", "allowed"), [("GET", CHAT, "POST"), ("POST", "/v1/models", "GET")])
def test_a_wrong_method_is_405_with_the_allowed_one(http: httpx.Client, method: str, path: str, allowed: str) -> None:
    response = http.request(method, path)
    error_of(response, 405)
    assert response.headers["allow"] == allowed
