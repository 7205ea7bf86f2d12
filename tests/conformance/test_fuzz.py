"""Whatever is sent, the answer is 200 or a well-formed 4xx; nothing is in the log that should not be, nothing goes on.

More, and others: `HYPOTHESIS_PROFILE=random FUZZ_CASES=10000 python -m pytest tests/conformance/test_fuzz.py`.
"""

import json
import logging
import os
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.conformance.bodies import RIGHT, bodies
from tests.frontend.conftest import CHAT, MAX_BODY_BYTES, MODEL, Running, error_of
from tests.frontend.fake_triton import Events

CASES = int(os.environ.get("FUZZ_CASES", "500"))
HAUS = Events([[6004], [21209]])
COMPLETED = ("event: response.completed\n", "event: response.incomplete\n")
JSON = {"content-type": "application/json"}


class Bugs(logging.Handler):
    """What our own process logs when something is wrong with it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """The fake Triton's web server is not ours: it complains when its client leaves."""
        if not record.name.startswith("aiohttp"):
            self.found.append(logging.Formatter().format(record))


@pytest.fixture
def bugs() -> Iterator[Bugs]:
    """What was logged while a test ran; nothing, or the test fails."""
    handler = Bugs()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)
    assert handler.found == []


def check(response: httpx.Response) -> None:
    """Fails unless it is 200 and complete, or a well-formed refusal."""
    event(f"{response.status_code}")
    if response.status_code != 200:
        assert 400 <= response.status_code < 500, response.text
        error_of(response, response.status_code)
    elif response.headers["content-type"].startswith("text/event-stream"):
        *events, last, rest = response.text.split("\n\n")
        data = [json.loads(event[event.index("data: ") + len("data: ") :]) for event in events]
        assert last == "data: [DONE]" or last.startswith(COMPLETED)
        assert rest == ""
        assert all(event.get("error") is None and event.get("type") != "error" for event in data)
    else:
        assert response.headers["content-type"] == "application/json"
        assert isinstance(response.json(), dict)


@settings(
    max_examples=CASES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_any_body(frontend: Running, http: httpx.Client, bugs: Bugs, data: st.DataObject) -> None:
    frontend.triton.script = [HAUS]
    path = data.draw(st.sampled_from(sorted(RIGHT)))
    check(http.post(path, headers=JSON, content=data.draw(bodies(path))))
    assert bugs.found == []
    frontend.wait_until(lambda: frontend.admission.num_running == frontend.admission.num_waiting == 0)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW"])
def test_wrong_methods(http: httpx.Client, bugs: Bugs, method: str) -> None:
    for path in RIGHT:
        response = http.request(method, path, headers=JSON, content=json.dumps(RIGHT[path]))
        assert response.status_code in (400, 405)


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        ";",
        "text/plain",
        "text/json",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
        "a/b/c",
    ],
)
def test_wrong_content_types(http: httpx.Client, bugs: Bugs, content_type: str) -> None:
    for path in RIGHT:
        response = http.post(path, headers={"content-type": content_type}, content=json.dumps(RIGHT[path]))
        error_of(response, 415)


@pytest.mark.parametrize("path", RIGHT)
def test_the_right_bodies_are_right(http: httpx.Client, path: str) -> None:
    assert http.post(path, json=RIGHT[path]).status_code == 200


def test_a_conversation_of_thousands_of_messages(http: httpx.Client, bugs: Bugs) -> None:
    messages = [{"role": "user" if number % 2 else "assistant", "content": ""} for number in range(4000)]
    response = http.post(CHAT, json={"model": MODEL, "messages": messages})
    assert error_of(response, 400)["code"] == "context_length_exceeded"
    response = http.post(CHAT, json={"model": MODEL, "messages": messages * 3})
    error_of(response, 413)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /\xff HTTP/1.1\r\n",
        b"GET /v1/models/\xc3\xbc HTTP/1.1\r\n",
        b"GET /v1/models/%ff%00%2f HTTP/1.1\r\n",
        b"GET /v1/models/../../etc/passwd HTTP/1.1\r\n",
        b"GET http://other/v1/models/x HTTP/1.1\r\n",
        b"GET * HTTP/1.1\r\n",
        b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: -1\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Type: \xff\xfe\r\nContent-Length: 0\r\n",
        b"BREW /v1/chat/completions HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9.9\r\n",
    ],
    ids=lambda head: repr(head[:60]),
)
def test_what_is_hardly_http(frontend: Running, http: httpx.Client, bugs: Bugs, head: bytes) -> None:
    url = urlsplit(frontend.url)
    with socket.create_connection((url.hostname or "", url.port or 0), timeout=5) as connection:
        connection.sendall(head + b"Host: x\r\nConnection: close\r\n\r\n")
        answer = connection.recv(100)
    assert answer.startswith(b"HTTP/1.1 4"), answer
    assert http.get("/health/live").status_code == 200


def test_many_small_pieces_are_one_body(frontend: Running, bugs: Bugs) -> None:
    content = json.dumps(RIGHT[CHAT]).encode()
    with httpx.Client(base_url=frontend.url) as client:
        response = client.post(CHAT, content=(bytes([byte]) for byte in content))
    assert response.status_code == 200
    assert len(content) < MAX_BODY_BYTES
