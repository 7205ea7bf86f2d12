"""Triton hangs when /health has answered 503 for long enough, and only then."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from frontend.local import health
from frontend.local.health import HUNG_AFTER_S, HealthWatch, health_status


class Frontend:
    """What /health answers, and the clock."""

    status = 200
    now = 0.0

    def __init__(self) -> None:
        self.watch = HealthWatch(lambda: self.status, lambda: self.now)

    def hung_after(self, seconds: float, status: int) -> bool:
        """Whether Triton counts as hung at some time of these seconds."""
        self.status = status
        hung = False
        for _ in range(int(seconds * 10)):
            self.now += 0.1
            hung |= self.watch.is_hung()
        return hung


def test_503_for_long_enough_is_a_hang() -> None:
    frontend = Frontend()
    assert not frontend.hung_after(100, 200)
    assert not frontend.hung_after(HUNG_AFTER_S - 2, 503)
    assert frontend.hung_after(4, 503)


def test_one_good_answer_in_between_starts_the_time_again() -> None:
    frontend = Frontend()
    for _ in range(3):
        assert not frontend.hung_after(HUNG_AFTER_S - 2, 503)
        assert not frontend.hung_after(2, 200)


def test_a_frontend_that_does_not_answer_says_nothing_of_triton() -> None:
    assert not Frontend().hung_after(100, 0)


@contextmanager
def answering(status: int, body: bytes = b"") -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request).start()
        yield f"http://127.0.0.1:{server.server_port}/health"


def test_the_status_is_that_of_the_answer_or_0() -> None:
    for status in (200, 503):
        with answering(status) as url:
            assert health_status(url) == status
    assert health_status(url) == 0


def test_a_frontend_that_refuses_all_requests_says_nothing_of_triton() -> None:
    with answering(503, b'{"error": {"code": "too_many_connections"}}') as url:
        assert health_status(url) == 0


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setattr(health, "_open", health._opener().open)  # made when the module is imported
    with answering(503) as url:
        assert health_status(url) == 503
