"""JSON allows numbers and nesting that Python or the engine do not: these are a 400, never a 500."""

import json

import httpx
import pytest

from tests.frontend.conftest import CHAT, body, error_of

DIGITS = "9" * 5000
"""More than Python converts to an integer."""


def send(http: httpx.Client, field: str, raw_value: str) -> httpx.Response:
    content = f'{json.dumps(body())[:-1]},"{field}":{raw_value}}}'
    return http.post(CHAT, content=content, headers={"content-type": "application/json"})


@pytest.mark.parametrize("field", ["max_tokens", "temperature", "seed", "stop", "unknown"])
@pytest.mark.parametrize("raw_value", ["[" * 90_000 + "]" * 90_000, '{"a":' * 20_000 + "1" + "}" * 20_000, DIGITS])
def test_unreadable_json_is_400_in_any_field(http: httpx.Client, field: str, raw_value: str) -> None:
    error = error_of(send(http, field, raw_value), 400)
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("field", "raw_value"),
    [
        ("max_tokens", "1e400"),
        ("max_tokens", "-1"),
        ("temperature", "1e400"),
        ("temperature", "-1e400"),
        ("temperature", "-0.1"),
        ("top_p", "Infinity"),
        ("top_k", str(2**40)),
        ("seed", str(2**64)),
        ("presence_penalty", "-1e308"),
        ("repetition_penalty", "1e308"),
        ("min_tokens", "9" * 30),
    ],
)
def test_number_out_of_range_is_400_and_names_the_field(http: httpx.Client, field: str, raw_value: str) -> None:
    assert error_of(send(http, field, raw_value), 400)["param"] == field


def test_more_tokens_than_any_context_has_are_400(http: httpx.Client) -> None:
    assert error_of(send(http, "max_tokens", "9" * 30), 400)["code"] == "context_length_exceeded"


@pytest.mark.parametrize("raw_value", ["[" * 150 + "]" * 150, "1e999999", "9" * 4000])
def test_unknown_field_may_have_any_readable_value(http: httpx.Client, raw_value: str) -> None:
    assert send(http, "unknown", raw_value).status_code == 200
