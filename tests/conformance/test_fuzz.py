"""Any input is answered with 200 or a well-formed 4xx. No error is logged, and no generation is left running.

More cases, newly drawn: `HYPOTHESIS_PROFILE=random FUZZ_CASES=10000 python -m pytest tests/conformance/test_fuzz.py`.
"""

import json
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.conformance.bodies import VALID, bodies
from tests.frontend.conftest import CHAT, MAX_BODY_BYTES, MODEL, Running, error_of, messages_error_of
from tests.frontend.fake_triton import Events

CASES = int(os.environ.get("FUZZ_CASES", "500"))
HAUS = Events([[6004], [21209]])
COMPLETED = ("event: response.completed\n", "event: response.incomplete\n", "event: message_stop\n")
JSON = {"content-type": "application/json"}


class Bugs(logging.Handler):
    """Collects the errors that the frontend logs."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Leave out aiohttp, which serves the fake Triton and logs an error when its client disconnects."""
        if not record.name.startswith("aiohttp"):
            self.found.append(logging.Formatter().format(record))


@pytest.fixture
def bugs() -> Iterator[Bugs]:
    """The errors logged during a test. The test fails if there is one."""
    handler = Bugs()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)
    assert handler.found == []


def error_of_its_api(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error object, after checking that it has the shape of the API that the route belongs to."""
    of_its_api = messages_error_of if response.request.url.path.startswith("/v1/messages") else error_of
    return of_its_api(response, status)


def check(response: httpx.Response) -> None:
    """Fail unless the response is a complete 200 or a well-formed 4xx."""
    event(f"{response.status_code}")
    if response.status_code != 200:
        assert 400 <= response.status_code < 500, response.text
        error_of_its_api(response, response.status_code)
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
def test_any_body_is_answered_or_refused(
    frontend: Running, http: httpx.Client, bugs: Bugs, data: st.DataObject
) -> None:
    frontend.triton.script = [HAUS]
    path = data.draw(st.sampled_from(sorted(VALID)))
    check(http.post(path, headers=JSON, content=data.draw(bodies(path))))
    assert bugs.found == []
    frontend.wait_until(lambda: frontend.admission.num_running == frontend.admission.num_waiting == 0)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW"])
def test_wrong_methods_are_refused(http: httpx.Client, bugs: Bugs, method: str) -> None:
    for path in VALID:
        response = http.request(method, path, headers=JSON, content=json.dumps(VALID[path]))
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
def test_wrong_content_types_are_415(http: httpx.Client, bugs: Bugs, content_type: str) -> None:
    for path in VALID:
        response = http.post(path, headers={"content-type": content_type}, content=json.dumps(VALID[path]))
        error_of_its_api(response, 415)


@pytest.mark.parametrize("path", VALID)
def test_bodies_that_the_strategies_start_from_are_valid(http: httpx.Client, path: str) -> None:
    assert http.post(path, json=VALID[path]).status_code == 200


def test_thousands_of_messages_exceed_the_context_or_the_body_limit(http: httpx.Client, bugs: Bugs) -> None:
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
def test_malformed_http_is_4xx_and_the_server_keeps_serving(
    frontend: Running, http: httpx.Client, bugs: Bugs, head: bytes
) -> None:
    url = urlsplit(frontend.url)
    with socket.create_connection((url.hostname or "", url.port or 0), timeout=60) as connection:
        connection.sendall(head + b"Host: x\r\nConnection: close\r\n\r\n")
        answer = connection.recv(100)
    assert answer.startswith(b"HTTP/1.1 4"), answer
    assert http.get("/health/live").status_code == 200


def test_a_body_in_one_byte_chunks_is_read_completely(frontend: Running, bugs: Bugs) -> None:
    content = json.dumps(VALID[CHAT]).encode()
    with httpx.Client(base_url=frontend.url) as client:
        response = client.post(CHAT, headers=JSON, content=(bytes([byte]) for byte in content))
    assert response.status_code == 200
    assert len(content) < MAX_BODY_BYTES
