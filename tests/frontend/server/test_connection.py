"""What a client may send before its key is checked: how much, how slowly, and on how many connections."""

import asyncio
import logging
import re
import socket
from collections.abc import Coroutine
from dataclasses import replace
from ipaddress import ip_network
from typing import Any, cast

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from frontend.errors import RateLimitExceeded, TooManyConnections
from frontend.server.connection import Connection
from frontend.server.connection_counts import ConnectionCounts
from frontend.server.connection_limits import ConnectionLimits
from frontend.server.descriptors import connections_that_fit
from tests.frontend.server.serving import Client, serving

SMALL = ConnectionLimits(
    max_url_bytes=100,
    max_header_bytes=1000,
    max_headers=10,
    header_timeout_s=0.2,
    body_timeout_s=0.2,
    write_timeout_s=0.2,
)
GENEROUS = ConnectionLimits(max_url_bytes=100, max_header_bytes=1000, max_headers=10)
HOST = b"Host: a\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST
HANDED_ON: list[str] = []
"""What has reached the application."""
ENDED: list[str] = []
"""Long answers that have ended there."""


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the length of the body; `/stream` in two parts, 0.5 s apart; `/large` and `/long` with 50 MB."""
    HANDED_ON.append(scope["path"])
    if scope["path"] == "/large":
        await PlainTextResponse(b"a" * 50_000_000)(scope, receive, send)
        return
    if scope["path"] == "/long":
        await StreamingResponse(_many_parts())(scope, receive, send)
        ENDED.append(scope["path"])
        return
    if scope["path"] == "/refuse":
        await PlainTextResponse("refused", 413, {"connection": "close"})(scope, receive, send)
        return
    if scope["path"] == "/stream":
        await StreamingResponse(_two_parts())(scope, receive, send)
        return
    try:
        body = await Request(scope, receive).body()
    except ClientDisconnect:
        return
    await PlainTextResponse(f"{len(body)} bytes")(scope, receive, send)


async def _many_parts() -> Any:
    for _ in range(50):
        yield b"a" * 1_000_000


async def _two_parts() -> Any:
    yield b"first "
    await asyncio.sleep(0.5)
    yield b"second"


@pytest.fixture(autouse=True)
def _nothing_handed_on() -> None:
    HANDED_ON.clear()
    ENDED.clear()


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 120))


@pytest.mark.parametrize(
    ("sent", "status", "message"),
    [
        (b"GET /" + b"a" * 101, 414, "The URL is longer than 100 bytes."),
        (b"GET /" + b"a" * 101 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414, "The URL is longer than 100 bytes."),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 1001 + b"\r\n\r\n", 431, "The headers are larger than 1000 bytes."),
        (b"GET / HTTP/1.1\r\n" + b"X: b\r\n" * 11 + b"\r\n", 431, "The request has more than 10 headers."),
        (b"nonsense\r\n\r\n", 400, "This is not a valid HTTP request: Invalid method encountered."),
        (b"GET noslash HTTP/1.1\r\n\r\n", 400, None),
        (b"GET http://[ HTTP/1.1\r\n" + HOST + b"\r\n", 400, None),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "The request has no Host header, which HTTP/1.1 requires."),
        (b"GET / HTTP/1.1\r\n" + HOST * 2 + b"\r\n", 400, "The request has 2 Host headers; one is accepted."),
        (b"GET /health\r\n\r\n", 400, "The request is HTTP/0.9; 1.0 and 1.1 are accepted."),
        (POST + b"Expect: foo\r\n\r\n", 417, "Expect: foo cannot be met; 100-continue is accepted."),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, None),
        (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, None),
        (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n", 400, None),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, None),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: b\r\n" * 11 + b"\r\n", 431, None),
    ],
)  # fmt: skip
def test_what_cannot_be_a_request_is_answered_with_openais_error_and_logged_with_the_address(
    caplog: pytest.LogCaptureFixture, sent: bytes, status: int, message: str | None
) -> None:
    caplog.set_level(logging.INFO, "frontend")

    async def scenario() -> None:
        async with serving(app, GENEROUS) as server:
            client = await Client.connect(server)
            await client.send(sent)
            answered, error, head = await client.error()
            assert (answered, error["type"], error["param"], error["code"]) == (
                status, "invalid_request_error", None, None,
            )  # fmt: skip
            assert message in (None, error["message"])
            assert b"content-type: application/json" in head
            assert f"127.0.0.1: {status} {error['message']}" in caplog.text

    run(scenario())


@pytest.mark.parametrize(
    "start",
    [
        b"GET / HTTP/1.1\r\nX: ",
        b"GET / HTTP/1.1\r\nX",
        b"GET /",
        POST + b"Transfer-Encoding: chunked\r\n\r\n1;",
        POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ",
        b"\r\n",
    ],
)
def test_what_does_not_end_is_not_kept(caplog: pytest.LogCaptureFixture, start: bytes) -> None:
    """In many pieces, as the network brings them: the parser itself keeps what it has of a header, without a bound."""
    caplog.set_level(logging.INFO, "frontend")

    async def scenario() -> None:
        async with serving(app, GENEROUS) as server:
            client = await Client.connect(server)
            await client.send(start)
            reading, num_pieces = asyncio.create_task(client.read_to_end()), 0
            while not (await asyncio.wait({reading}, timeout=0.1))[0]:
                await client.send(b"a" * 400 if start.strip() else b"\r\n" * 200)
                num_pieces += 1
            assert num_pieces <= 3

    run(scenario())
    assert re.search("127.0.0.1: (431|414) ", caplog.text)


@pytest.mark.parametrize("start", [b"GET / HTTP/1.0\r\n", b"GET / HTTP/1.1\r\nhost:\r\nExpect: 100-Continue\r\n"])
def test_heads_that_need_not_say_more_are_handed_on(start: bytes) -> None:
    async def scenario() -> None:
        async with serving(app, SMALL) as server:
            client = await Client.connect(server)
            await client.send(start + b"\r\n")
            assert b" 200 OK\r\n" in await client.read_until(b"0 bytes")
            await client.close()

    run(scenario())


def test_a_request_within_the_limits_is_handed_on_and_the_connection_stays() -> None:
    async def scenario() -> None:
        async with serving(app, SMALL) as server:
            client = await Client.connect(server)
            for _ in range(2):
                await client.send(POST + b"X: " + b"a" * 900 + b"\r\nContent-Length: 5\r\n\r\n12345")
                assert (await client.read_until(b"5 bytes")).startswith(b"HTTP/1.1 200 ")
                await asyncio.sleep(3 * SMALL.header_timeout_s)  # the times of the request before are over
            await client.close()

    run(scenario())


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"GET / HT", "The headers did not arrive within 0.2 s."),
        (b"GET /health\r\n", "The headers did not arrive within 0.2 s."),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX-", "The headers did not arrive within 0.2 s."),
        (POST + b"Content-Length: 5\r\n\r\n1234", "The body did not arrive within 0.2 s."),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n", "The body did not arrive within 0.2 s."),
    ],
)
def test_a_request_that_stalls_is_answered_408(sent: bytes, message: str) -> None:
    async def scenario() -> None:
        async with serving(app, SMALL) as server:
            client = await Client.connect(server)
            await client.send(sent)
            status, error, _ = await client.error()
            assert (status, error["message"]) == (408, message)

    run(scenario())


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\nX: ", POST + b"Content-Length: 500\r\n\r\n"])
def test_a_byte_now_and_then_does_not_win_time(caplog: pytest.LogCaptureFixture, start: bytes) -> None:
    caplog.set_level(logging.INFO, "frontend")

    async def scenario() -> None:
        async with serving(app, SMALL) as server:
            client = await Client.connect(server)
            await client.send(start)
            reading = asyncio.create_task(client.read_to_end())
            while not reading.done():
                await client.send(b"a")
                await asyncio.sleep(0.02)

    run(scenario())
    assert "127.0.0.1: 408 " in caplog.text  # the answer itself is lost if a byte crosses it


@pytest.mark.parametrize("sent", [b"", b"\r\n\r\n"])
def test_a_connection_that_sends_no_request_is_closed_without_an_answer(sent: bytes) -> None:
    async def scenario() -> None:
        async with serving(app, SMALL) as server:
            client = await Client.connect(server)
            await client.send(sent)
            assert await client.read_to_end() == b""

    run(scenario())


@pytest.mark.parametrize("behind", [b"GET / HT", POST + b"Content-Length: 5\r\n\r\n1"])
def test_an_answer_longer_than_the_limits_is_not_cut_off_by_what_the_client_sends_behind(behind: bytes) -> None:
    async def scenario() -> None:
        async with serving(app, SMALL) as server:
            client = await Client.connect(server)
            await client.send(b"GET /stream HTTP/1.1\r\n" + HOST + b"\r\n" + behind)
            assert b"first " in await client.read_until(b"second")
            await client.close()

    run(scenario())


def test_an_error_behind_a_request_is_answered_after_its_answer() -> None:
    async def scenario() -> None:
        async with serving(app, SMALL) as server:
            client = await Client.connect(server)
            await client.send(b"GET /stream HTTP/1.1\r\n" + HOST + b"\r\n" + POST + b"\r\nnonsense\r\n\r\n")
            answers = (await client.read_to_end()).split(b"HTTP/1.1 ")[1:]
            assert [answer[:3] for answer in answers] == [b"200", b"200", b"400"]
            assert b"second" in answers[0]
            assert b"connection: close" in answers[2]

    run(scenario())


@pytest.mark.parametrize("size", [1 << 20, 1000, 40])
def test_all_requests_sent_ahead_of_their_answers_are_answered_in_order(size: int) -> None:
    """Sent in writes of `size` bytes. The connection reads no further while enough of them wait."""
    others = [b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % n + b"a" * n for n in range(150)]
    sent = b"".join([b"GET /stream HTTP/1.1\r\n" + HOST + b"\r\n", *others])

    async def scenario() -> None:
        async with serving(app, ConnectionLimits()) as server:
            client = await Client.connect(server)
            sending = asyncio.create_task(client.send_in_pieces(sent, size))
            assert b"first " in await client.read_until(b"second")
            answers = await client.read_until(b"149 bytes")
            assert re.findall(rb"(\d+) bytes", answers) == [b"%d" % n for n in range(150)]
            await sending
            await client.close()

    run(scenario())


def test_a_body_of_many_chunks_is_parsed_in_several_turns_of_the_event_loop() -> None:
    head = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"

    async def scenario() -> None:
        async with serving(app, ConnectionLimits()) as server:
            client = await Client.connect(server)
            await client.send(head + b"1\r\na\r\n")
            while not HANDED_ON:
                await asyncio.sleep(0.01)
            [connection] = cast(set[Connection], server.server_state.connections)
            connection.data_received(b"1\r\na\r\n" * 40_000)  # what one read of 256 KiB brings
            assert len(connection.cycle.body) <= 10_000
            connection.data_received(b"0\r\n\r\n")
            assert b"40001 bytes" in await client.read_until(b"bytes")
            await client.close()

    run(scenario())


def test_requests_sent_ahead_of_their_answers_are_not_kept_parsed() -> None:
    waiting: list[int] = []
    server: Any = None

    async def watching(scope: Scope, receive: Receive, send: Send) -> None:
        [connection] = server.server_state.connections
        waiting.append(len(connection.pipeline))
        await PlainTextResponse(scope["path"])(scope, receive, send)

    async def scenario() -> None:
        nonlocal server
        async with serving(watching, ConnectionLimits()) as server:
            client = await Client.connect(server)
            last = b"GET /last HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
            sending = asyncio.create_task(client.send(b"GET / HTTP/1.1\r\nHost:\r\n\r\n" * 5_000 + last))
            assert (await client.read_to_end()).endswith(b"/last")
            await sending

    run(scenario())
    assert len(waiting) == 5_001
    assert max(waiting) < 200


def test_requests_behind_one_that_asks_for_another_protocol_are_answered() -> None:
    upgrade = b"GET /upgrade HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"

    async def scenario() -> None:
        async with serving(app, ConnectionLimits()) as server:
            client = await Client.connect(server)
            await client.send(upgrade + POST + b"Content-Length: 5\r\n\r\n12345")
            assert (await client.read_until(b"5 bytes")).count(b"HTTP/1.1 200 ") == 2
            await client.close()

    run(scenario())


def test_an_upgrade_is_ignored_and_logged_with_the_address(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        async with serving(app, SMALL) as server:
            client = await Client.connect(server)
            await client.send(b"GET / HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            assert (await client.read_until(b"0 bytes")).startswith(b"HTTP/1.1 200 ")
            await client.close()

    run(scenario())
    assert "127.0.0.1: asks for another protocol" in caplog.text
    assert "pip install" not in caplog.text


@pytest.mark.parametrize("path", ["/large", "/long"])
@pytest.mark.parametrize("last", [b"Connection: close\r\n", b""])
def test_a_client_that_does_not_read_is_cut_off(path: str, last: bytes) -> None:
    async def scenario() -> None:
        counts = ConnectionCounts(1, 1)
        async with serving(app, SMALL, counts) as server:
            client = await Client.connect(server)
            await client.send(b"GET " + path.encode() + b" HTTP/1.1\r\n" + HOST + last + b"\r\n")
            while not counts.num_open:
                await asyncio.sleep(0.01)
            while counts.num_open:
                await asyncio.sleep(0.01)
            assert len(await client.read_to_end()) < 50_000_000
            assert path == "/large" or ENDED

    run(scenario())


@pytest.mark.parametrize(
    "head",
    [
        b"POST /refuse HTTP/1.1\r\n" + HOST + b"Content-Length: 20000000\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HOST * 2 + b"Content-Length: 20000000\r\n\r\n",
    ],
)
def test_a_client_that_sends_all_of_a_refused_request_before_it_reads_gets_the_answer(head: bytes) -> None:
    def send_then_read(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(head)
            for _ in range(200):
                client.sendall(b"a" * 100_000)
            return client.makefile("rb").read()

    async def scenario() -> None:
        counts = ConnectionCounts(1, 1)
        async with serving(app, GENEROUS, counts) as server:
            port = server.servers[0].sockets[0].getsockname()[1]
            answer = await asyncio.to_thread(send_then_read, port)
            assert answer[:12] in (b"HTTP/1.1 413", b"HTTP/1.1 400")
            while counts.num_open:
                await asyncio.sleep(0.01)

    run(scenario())


@pytest.mark.parametrize("limit", [{"linger_s": 0.1}, {"max_discarded_bytes": 1000}])
def test_what_follows_a_refused_request_is_read_for_a_while_only(limit: dict[str, Any]) -> None:
    async def scenario() -> None:
        counts = ConnectionCounts(1, 1)
        async with serving(app, replace(GENEROUS, **limit), counts) as server:
            client = await Client.connect(server)
            await client.send(b"POST /refuse HTTP/1.1\r\n" + HOST + b"Content-Length: 20000000\r\n\r\n")
            assert b" 413 " in await client.read_until(b"refused")
            while counts.num_open:
                await client.send(b"a" * 100)
                await asyncio.sleep(0.01)
            await client.close()

    run(scenario())


# ---- Connections


def test_connections_of_one_address_and_of_all_are_bounded_and_answered() -> None:
    async def scenario() -> None:
        counts = ConnectionCounts(max_connections=3, max_per_address=2)
        async with serving(app, GENEROUS, counts) as server:
            clients = [await Client.connect(server) for _ in range(2)]
            while counts.num_open < 2:
                await asyncio.sleep(0.01)
            status, error, head = await (await Client.connect(server)).error()
            assert (status, error["type"]) == (429, "rate_limit_error")
            assert error["message"] == "2 connections of your address are open, the most allowed."
            assert b"retry-after: 1" in head
            other = await Client.connect(server, "127.0.0.2")
            await other.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
            assert b" 200 " in await other.read_until(b"0 bytes")
            status, error, head = await (await Client.connect(server, "127.0.0.3")).error()
            assert (status, error["code"]) == (503, "too_many_connections")
            assert b"retry-after: 1" in head
            for client in [*clients, other]:
                await client.close()
            while counts.num_open:
                await asyncio.sleep(0.01)
            assert HANDED_ON == ["/"]

    run(scenario())


@pytest.mark.parametrize(
    ("first", "second", "are_one"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::1%eth0", True),
        ("10.0.0.1", "10.0.0.1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", False),
        ("", "", False),
    ],
)
def test_what_counts_as_one_address(first: str, second: str, are_one: bool) -> None:
    """Proxies, here of 10.0.0.0/8, and Unix sockets may have any number."""
    counts = ConnectionCounts(max_connections=9, max_per_address=1, proxies=[ip_network("10.0.0.0/8")])
    counts.add(first)
    if are_one:
        with pytest.raises(RateLimitExceeded):
            counts.add(second)
        counts.remove(first)
    counts.add(second)


def test_a_refused_connection_is_not_counted() -> None:
    counts = ConnectionCounts(max_connections=1, max_per_address=9)
    counts.add("192.0.2.1")
    with pytest.raises(TooManyConnections):
        counts.add("192.0.2.2")
    counts.remove("192.0.2.1")
    counts.add("192.0.2.2")


def test_connections_are_fewer_where_the_limit_on_open_files_is_low(caplog: pytest.LogCaptureFixture) -> None:
    assert connections_that_fit(4096, 1_048_576, 256) == 4096
    assert not caplog.records
    assert connections_that_fit(4096, 1024, 256) == 640
    assert "at most 640 connections, not 4096: the hard limit on open files is 1024" in caplog.text
