"""One HTTP POST whose response body is read as a stream, on a connection of its own: the hot path from Triton.

Each piece of the body is handed on in the callback that received it, because at 64 streams waking a task for each token
costs as much CPU as everything else done for it. Not here: what the body means, redirects, reuse of connections.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast
from urllib.parse import urlsplit

import httptools

from frontend.errors import EngineUnavailable

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
                _set_exception(future, EngineUnavailable("The engine has gone away."))

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


async def post(url: str, body: bytes, coalescing: ReadCoalescing, reader: Callable[[int], OnBody]) -> None:
    """Send `body` as JSON. `reader` gets the response's status and returns what takes its body.

    Returns when the body ends or its reader wants no more. Returning closes the connection, which cancels what the
    server still does for it. `url` begins with http://. Raises EngineUnavailable when there is no connection or it
    breaks off, and whatever the reader raises.
    """
    target = urlsplit(url)
    host, port = target.hostname or "", target.port or 80
    head = (
        f"POST {target.path} HTTP/1.1\r\nHost: {target.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    stream = _HttpStream(head.encode() + body, coalescing)
    connecting = asyncio.ensure_future(asyncio.get_running_loop().create_connection(lambda: stream, host, port))
    try:
        await _connected(connecting)
        with coalescing.stream():
            stream.read(reader(await stream.status))
            await stream.finished
    finally:
        connecting.cancel()
        stream.close()


async def _connected(connecting: "asyncio.Future[Any]") -> None:
    """Return when there is a connection. Raises EngineUnavailable.

    Not asyncio.wait_for: up to Python 3.11 it forgets a cancellation that comes together with the connection, and a
    client that left would keep its slot until its answer is complete.
    """
    done, _ = await asyncio.wait({connecting}, timeout=CONNECT_TIMEOUT_S)
    if not done or connecting.exception() is not None:
        raise EngineUnavailable("The engine cannot be reached.") from (connecting.exception() if done else None)
