"""An attack, the server that it is sent to, and the ways of sending bytes.

Attackers connect from an address of their own, so that limits by address do not hold for the probe and the neighbour.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

ATTACKER_ADDRESS = "127.0.0.2"
ATTACKER_KEY, NEIGHBOUR_KEY = "mallory", "alice"
MODEL = "m"
CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
ANSWER_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Target:
    """A running server: its ports on loopback, and its largest body."""

    port: int
    triton_port: int
    max_body_bytes: int


Outcomes = Counter[str]
"""How often each thing happened: a status, or in words what came instead of one."""

Send = Callable[[Target], Coroutine[Any, Any, Outcomes]]


@dataclass(frozen=True)
class Attack:
    """One line of the table. `tiny_cache`: against an engine whose KV cache holds `TINY_CACHE_TOKENS`."""

    name: str
    send: Send
    tiny_cache: bool = False


TINY_CACHE_TOKENS = 2912
TINY_CACHE_BYTES = TINY_CACHE_TOKENS * 2 * 2 * 3 * 64 * 30
"""With the demo model: keys and values in float16, 3 heads of 64, 30 layers."""


def head(path: str, length: int, *more: str, key: str = ATTACKER_KEY) -> bytes:
    """The head of a POST of JSON."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {length}"]
    return "\r\n".join([*lines, f"Authorization: Bearer {key}", "Connection: close", *more, "", ""]).encode()


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection from the attacker's address."""
    return await asyncio.open_connection("127.0.0.1", port, local_addr=(ATTACKER_ADDRESS, 0))


async def exchange(port: int, pieces: Iterable[bytes], timeout_s: float = ANSWER_TIMEOUT_S) -> str:
    """Send the pieces one by one and read the answer to its end: its status, or why there is none."""
    try:
        return await asyncio.wait_for(_exchange(port, pieces), timeout_s)
    except TimeoutError:
        return f"no answer in {timeout_s:.0f} s"
    except OSError:
        return "closed"


async def _exchange(port: int, pieces: Iterable[bytes]) -> str:
    reader, writer = await connect(port)
    answering = asyncio.create_task(read_to_end(reader))
    try:
        with suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                if answering.done():  # refused before all of it was read
                    break
        return status_of(await answering)
    finally:
        answering.cancel()
        writer.close()


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    """What arrives until the connection is closed or reset."""
    answer = b""
    with suppress(ConnectionError):
        while piece := await reader.read(1 << 16):
            answer += piece
    return answer


def status_of(answer: bytes) -> str:
    """The status of an HTTP answer, and whether its stream ended with an error event."""
    if not answer.startswith(b"HTTP/1."):
        return "closed"
    error = " then an error event" if b'data: {"error"' in answer else ""
    return answer[9:12].decode() + error


def post(path: str, fields: dict[str, Any], *, times: int = 1, timeout_s: float = ANSWER_TIMEOUT_S) -> Send:
    """The same JSON body, `times` at once."""
    body = json.dumps({"model": MODEL} | fields).encode()

    async def send(target: Target) -> Outcomes:
        pieces = [head(path, len(body)) + body]
        return Counter(await asyncio.gather(*[exchange(target.port, pieces, timeout_s) for _ in range(times)]))

    return send


def post_each(path: str, bodies: Callable[[], Iterable[dict[str, Any]]], at_once: int) -> Send:
    """Different JSON bodies, `at_once` of them at a time."""

    async def send(target: Target) -> Outcomes:
        rest, outcomes = iter(bodies()), Outcomes()

        async def client() -> None:
            for fields in rest:
                body = json.dumps({"model": MODEL} | fields).encode()
                outcomes[await exchange(target.port, [head(path, len(body)) + body])] += 1

        await asyncio.gather(*[client() for _ in range(at_once)])
        return outcomes

    return send


def raw(pieces: Callable[[Target], Iterable[bytes]], *, to_triton: bool = False) -> Send:
    """Bytes as they are, on one connection."""

    async def send(target: Target) -> Outcomes:
        return Outcomes([await exchange(target.triton_port if to_triton else target.port, pieces(target))])

    return send


def sequence(*steps: Send) -> Send:
    """One after the other."""

    async def send(target: Target) -> Outcomes:
        outcomes = Outcomes()
        for step in steps:
            outcomes += await step(target)
        return outcomes

    return send
