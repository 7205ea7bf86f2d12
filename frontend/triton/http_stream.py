"""One HTTP POST whose response body is read as a stream, on a connection of its own: the hot path from Triton.

Each piece of the body is handed on in the callback that received it, because at 64 streams waking a task for each token
costs as much CPU as everything else done for it. Not here: what the body means, redirects, reuse of connections.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast
from urllib.parse import urlsplit

import httptools

from frontend.errors import EngineGone

CONNECT_TIMEOUT_S = 5.0

OnBody = Callable[[bytes], bool]
"""Takes a piece of the body; True when it wants no more."""

_PAUSE_S = 0.002
_PAUSE_FROM_STREAMS = 16
"""With fewer streams a pause saves few wake-ups, and delays each token by up to 2 ms."""


class ReadCoalescing:
    """Lets one wake-up of the event loop read several streams, as network cards coalesce interrupts.

    The engine sends the tokens of one step one after the other, and a wake-up for each costs more CPU than reading it.
    So with many open streams the event loop sleeps for 2 ms after a read. It blocks on purpose: a timer would be a
    wake-up too. With 64 streams of a real engine this saves a quarter of the CPU time per token.
    """

    def __init__(self) -> None:
        self._num_open = 0
        self._pausing = False

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Count a stream while it is open."""
        self._num_open += 1
        try:
            yield
        finally:
            self._num_open -= 1

    def on_read(self) -> None:
        """Pause once, after all that can be read now."""
        if self._num_open >= _PAUSE_FROM_STREAMS and not self._pausing:
            self._pausing = True
            asyncio.get_running_loop().call_soon(self._pause)

    def _pause(self) -> None:
        self._pausing = False
        time.sleep(_PAUSE_S)


class _HttpStream(asyncio.Protocol):
    """The connection. `status` is a future of the response's status, `finished` one of the end of its body.

    `read` may be called between the two.
    """

    def __init__(self, request: bytes, coalescing: ReadCoalescing) -> None:
        loop = asyncio.get_running_loop()
        self.status: asyncio.Future[int] = loop.create_future()
        self.finished: asyncio.Future[None] = loop.create_future()
        self._request = request
        self._coalescing = coalescing
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._complete = False
        self._on_body: OnBody | None = None
        self._transport: asyncio.Transport | None = None
        self._closed = False

    def read(self, on_body: OnBody) -> None:
        """Hand the body to `on_body` from now on, beginning with what has arrived already."""
        self._on_body = on_body
        self._deliver()

    def close(self) -> None:
        """Close the connection, or have it closed as soon as it is made."""
        self._closed = True
        if self._transport is not None:
            self._transport.abort()

    def _deliver(self) -> None:
        if self._on_body is None or self.finished.done():
            return
        try:
            enough = bool(self._body) and self._on_body(b"".join(self._body))
        except Exception as exc:
            _set_exception(self.finished, exc)
        else:
            self._body.clear()
            if enough or self._complete:
                self.finished.set_result(None)

    def _fail(self) -> None:
        for future in (self.status, self.finished):
            if not future.done():
                _set_exception(future, EngineGone("The engine has gone away. Please retry shortly."))

    # ---- called by the event loop ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request, unless it was cancelled meanwhile."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass, but has the same methods
        if self._closed:
            self._transport.abort()
        else:
            self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Part of the response. One that is not HTTP ends the stream."""
        self._coalescing.on_read()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail()
        else:
            self._deliver()

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed by either side. A response that is complete stays valid, even if nothing has read it yet."""
        if not self._complete:
            self._fail()

    # ---- called by the parser --------------------------------------------------------------------------------------

    def on_headers_complete(self) -> None:
        """The status is known."""
        if not self.status.done():
            self.status.set_result(self._parser.get_status_code())

    def on_body(self, body: bytes) -> None:
        """A piece of the body, without its chunked framing."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """The whole response has arrived."""
        self._complete = True


def _set_exception(future: "asyncio.Future[Any]", exc: Exception) -> None:
    future.set_exception(exc)
    future.exception()  # marks it as retrieved: asyncio would log one that nothing awaits any more


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go, and the part of them that is the same for each."""

    host: str
    port: int
    head: bytes

    @classmethod
    def of(cls, url: str, headers: Mapping[str, str]) -> "Target":
        """`url` begins with http://. `headers` are sent besides those that HTTP needs."""
        parts = urlsplit(url)
        lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", "Content-Type: application/json"]
        lines += ["Connection: close", "Content-Length: "]
        return cls(parts.hostname or "", parts.port or 80, "\r\n".join(lines).encode()).with_headers(headers)

    def with_headers(self, headers: Mapping[str, str]) -> "Target":
        """The same, with more headers: before the others, as the head ends where the length of the body follows."""
        request_line, _, rest = self.head.partition(b"\r\n")
        more = "".join(f"\r\n{name}: {value}" for name, value in headers.items()).encode()
        return replace(self, head=b"%b%b\r\n%b" % (request_line, more, rest))


async def post(target: Target, body: bytes, coalescing: ReadCoalescing, reader: Callable[[int], OnBody]) -> None:
    """Send `body` as JSON. `reader` gets the response's status and returns what takes its body.

    Returns when the body ends or its reader wants no more. Returning closes the connection, which cancels what the
    server still does for it. Raises EngineGone when there is no connection or it
    breaks off, and whatever the reader raises.
    """
    stream = _HttpStream(b"%b%d\r\n\r\n%b" % (target.head, len(body), body), coalescing)
    loop = asyncio.get_running_loop()
    connecting = asyncio.ensure_future(loop.create_connection(lambda: stream, target.host, target.port))
    try:
        await _connected(connecting)
        with coalescing.stream():
            stream.read(reader(await stream.status))
            await stream.finished
    finally:
        connecting.cancel()
        stream.close()


async def _connected(connecting: "asyncio.Future[Any]") -> None:
    """Return when there is a connection. Raises EngineGone.

    Not asyncio.wait_for: up to Python 3.11 it forgets a cancellation that comes together with the connection, and a
    client that left would keep its slot until its answer is complete.
    """
    done, _ = await asyncio.wait({connecting}, timeout=CONNECT_TIMEOUT_S)
    if not done or connecting.exception() is not None:
        raise EngineGone("The engine cannot be reached. Please retry shortly.") from (
            connecting.exception() if done else None
        )
