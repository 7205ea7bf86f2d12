"""A stream whose engine has not begun yet gets comments, so that no proxy cuts it as silent."""

from typing import Any

import httpx
import openai
import pytest

from frontend.server import streaming
from tests.frontend.conftest import CHAT, MODEL, body
from tests.frontend.fake_triton import Endless, Events, FakeTriton

SLOW: dict[str, Any] = {"bytes_per_write": 20, "pause_s": 0.1}
"""The first event of the engine takes some 0.3 s."""


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_SILENCE_S", 0.05)


def test_comments_come_before_the_first_event_and_not_after_it(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [Events([[6004], [21209]], **SLOW)]
    response = http.post(CHAT, json=body(stream=True))
    waiting, rest = response.text[: response.text.index("data: ")], response.text[response.text.index("data: ") :]
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert waiting == ": waiting\n\n" * waiting.count(":")
    assert waiting
    assert ": waiting" not in rest
    assert rest.endswith("data: [DONE]\n\n")


def test_openais_client_skips_them(client: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [Events([[6004], [21209]], **SLOW)]
    stream = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi"}], stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == " Ein Haus"


def test_an_error_after_a_comment_is_an_event(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [Events(["boom"], **SLOW)]
    response = http.post(CHAT, json=body(stream=True))
    assert response.status_code == 200
    assert response.text.startswith(": waiting\n\n")
    assert response.text.rpartition(": waiting\n\n")[2].startswith('data: {"error":{"message":"The engine could not')


def test_a_client_that_leaves_while_it_waits_is_noticed(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [Events([[6004]], **SLOW), Endless(6004)]
    with http.stream("POST", CHAT, json=body(stream=True)) as response:
        assert next(response.iter_lines()) == ": waiting"


def test_a_body_that_is_not_streamed_has_none(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [Events([[6004]], **SLOW)]
    assert http.post(CHAT, json=body()).json()["choices"][0]["message"]["content"] == " Ein"
