"""X-Request-Id: in every response and in every line of the log, and not sent to Triton."""

import io
import logging
import re
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from frontend.server.log import log_handler
from tests.frontend.conftest import CHAT, Running, body
from tests.frontend.fake_triton import Endless, FakeTriton, Refusal

NEW_ID = re.compile(r"req_[0-9a-f]{32}")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the frontend writes to stderr from now on."""
    lines, handler, root = io.StringIO(), log_handler(), logging.getLogger()
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(lines)
    level = root.level
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    yield lines
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.mark.parametrize(
    ("method", "path", "sent", "status"),
    [
        ("GET", "/health", None, 200),
        ("GET", "/v1/models", None, 200),
        ("POST", CHAT, body(), 200),
        ("POST", CHAT, body(stream=True), 200),
        ("POST", CHAT, body(model="gpt-4"), 404),
        ("POST", CHAT, {}, 400),
        ("GET", "/nothing", None, 404),
        ("GET", CHAT, None, 405),
    ],
)
def test_every_response_has_the_clients_id_or_a_new_one(
    http: httpx.Client, method: str, path: str, sent: Any, status: int
) -> None:
    given = http.request(method, path, json=sent, headers={"X-Request-Id": "order_66/A.b:c=+-"})
    without = http.request(method, path, json=sent)
    assert (given.status_code, without.status_code) == (status, status)
    assert given.headers.get_list("x-request-id") == ["order_66/A.b:c=+-"]
    assert NEW_ID.fullmatch(without.headers["x-request-id"])


@pytest.mark.parametrize("stream", [False, True])
def test_responses_to_engine_errors_and_unexpected_exceptions_have_it_too(
    http: httpx.Client, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    triton.script = [Refusal(500, "boom")]
    response = http.post(CHAT, json=body(stream=stream), headers={"X-Request-Id": "a"})
    assert (response.status_code, response.headers["x-request-id"]) == (500, "a")
    monkeypatch.setattr("frontend.server.routes.generate.to_chat_job", None)
    response = http.post(CHAT, json=body(stream=stream), headers={"X-Request-Id": "b"})
    assert (response.status_code, response.headers["x-request-id"]) == (500, "b")


@pytest.mark.parametrize(
    ("given", "accepted"),
    [
        (b"a" * 128, True),
        (b"9f1c2d3e-5b6a-4c7d-8e9f-0a1b2c3d4e5f", True),
        (b"01ARZ3NDEKTSV4RRFFQ69G5FAV", True),
        (b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", True),
        (b"Root=1-67891233-abcdef012345678912345678", True),
        (b"a" * 129, False),
        (b"", False),
        (b"a\tb", False),
        (b"\xe4", False),
        (b"x] ERROR frontend [y", False),
        (b"a b", False),
        (b"a%0Ab", False),
        (b"<b>", False),
        (b'"', False),
    ],
)
def test_id_that_is_too_long_or_could_feign_a_line_of_the_log_is_replaced(
    http: httpx.Client, given: bytes, accepted: bool
) -> None:
    answered = http.get("/health", headers=[(b"x-request-id", given)]).headers["x-request-id"]
    assert answered == given.decode() if accepted else NEW_ID.fullmatch(answered)


@pytest.mark.parametrize("stream", [False, True])
def test_id_is_not_sent_to_the_engine(http: httpx.Client, triton: FakeTriton, stream: bool) -> None:
    http.post(CHAT, json=body(stream=stream), headers={"X-Request-Id": "secret-id"})
    assert len(triton.requests) == 1
    assert "secret-id" not in f"{triton.requests} {triton.headers}"


def test_every_log_line_of_a_request_has_its_id(frontend: Running, http: httpx.Client, log: io.StringIO) -> None:
    names = [name for name in ("first", "second") for _ in range(3)]
    for name in names[::3]:
        http.post(CHAT, json=body(foo=1), headers={"X-Request-Id": name})
    # A client may have its answer and send the next request before the last line of the first is written.
    frontend.wait_until(lambda: sorted(re.findall(r" frontend\.\S+ \[(.*?)\]", log.getvalue())) == names)


def test_traceback_of_an_unexpected_exception_has_the_id(
    frontend: Running, http: httpx.Client, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frontend.server.routes.generate.to_chat_job", None)
    http.post(CHAT, json=body(), headers={"X-Request-Id": "unlucky"})
    frontend.wait_until(lambda: " ERROR " in log.getvalue())
    [line] = [line for line in log.getvalue().splitlines() if " ERROR " in line]
    assert "[unlucky]" in line


def test_log_line_outside_of_a_request_has_no_id(log: io.StringIO) -> None:
    logging.getLogger("frontend").info("up")
    assert log.getvalue().endswith("INFO frontend [-] up\n")


def test_disconnect_while_the_body_is_read_is_logged_as_499(frontend: Running, log: io.StringIO) -> None:
    address = urlsplit(frontend.url)
    with socket.create_connection((address.hostname, address.port or 80)) as connection:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}X-Request-Id: gone\r\nContent-Length: 9\r\n\r\n{{".encode())
    frontend.wait_until(lambda: f"[gone] POST {CHAT} from 127.0.0.1: 499 client left" in log.getvalue())


def test_stream_starts_before_it_ends(frontend: Running, http: httpx.Client) -> None:
    """The start passes the middleware and the rest does not: they must still be sent in order."""
    frontend.triton.script = [Endless(6004)]
    with http.stream("POST", CHAT, json=body(stream=True), headers={"X-Request-Id": "open"}) as response:
        lines = response.iter_lines()
        assert (response.headers["x-request-id"], '"role":"assistant"' in next(lines)) == ("open", True)
