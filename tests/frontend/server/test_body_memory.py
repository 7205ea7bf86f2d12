"""Bodies that are being read are bounded in bytes altogether, and one caller leaves room for others."""

import socket
from contextlib import ExitStack
from select import select
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.errors import TooManyBodies
from frontend.server import body_memory
from frontend.server.body_memory import MIN_BODY_MEMORY_BYTES, BodyMemory
from tests.frontend.conftest import CHAT, MAX_BODY_BYTES, Running, body

TOTAL = 400


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memories of TOTAL bytes."""
    monkeypatch.setattr(body_memory, "MIN_BODY_MEMORY_BYTES", TOTAL)


def test_a_caller_that_is_alone_may_hold_half() -> None:
    with BodyMemory(1).body("a") as grow:
        grow(TOTAL // 2)
        with pytest.raises(TooManyBodies) as caught:
            grow(1)
    assert caught.value.headers["retry-after"] == "1"


def test_bytes_are_given_back_when_the_body_is_read_or_refused() -> None:
    memory = BodyMemory(1)
    for _ in range(2):
        with memory.body("a") as grow:
            grow(TOTAL // 2)
            with pytest.raises(TooManyBodies):
                grow(1)


def test_two_bodies_of_the_largest_size_fit_however_large_that_is() -> None:
    memory = BodyMemory(TOTAL)
    with memory.body("a") as first, memory.body("a") as second:
        first(TOTAL)
        second(TOTAL)


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 60)), max_size=60))
def test_the_total_is_bounded_and_a_new_caller_always_has_room(pieces: list[tuple[str, int]]) -> None:
    memory, held = BodyMemory(1), dict.fromkeys("abcde", 0)
    with ExitStack() as bodies:
        for caller, num_bytes in pieces:
            try:
                bodies.enter_context(memory.body(caller))(num_bytes)
            except TooManyBodies:
                continue
            held[caller] += num_bytes
        num_free = TOTAL - sum(held.values())
        assert num_free >= TOTAL / 2 ** sum(map(bool, held.values()))
        with memory.body("new") as grow:
            grow(num_free // 2)
    with memory.body("a") as grow:
        grow(TOTAL // 2)


def test_stalled_bodies_of_one_address_are_answered_429_and_another_address_is_served(frontend: Running) -> None:
    address = urlsplit(frontend.url)
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {MAX_BODY_BYTES}\r\n\r\n"
    )
    num_bodies = MIN_BODY_MEMORY_BYTES // 2 // MAX_BODY_BYTES + 2
    with ExitStack() as connections:
        opened = []
        for _ in range(num_bodies):
            stalled = connections.enter_context(socket.create_connection((address.hostname or "", address.port or 0)))
            stalled.sendall(head.encode() + b" " * (MAX_BODY_BYTES - 1))
            opened.append(stalled)
        answered, _, _ = select(opened, [], [], 60)  # the one whose body grew past the address's share
        assert answered[0].recv(1000).startswith(b"HTTP/1.1 429 ")
        with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2")) as other:
            assert other.post(frontend.url + CHAT, json=body()).status_code == 200
