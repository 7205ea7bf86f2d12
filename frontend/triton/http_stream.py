"""One HTTP POST and the body of its answer as it comes, on a connection of its own: the hot path from Triton.

The body is handed on in the very callback that received it, because at 64 streams waking a task for each token costs as
much as everything else done for it. Refuses to interpret the body, to follow redirects, and to reuse connections.
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
"""Takes all that has arrived; True when it wants no more."""

_REST_S = 0.002

_REST_FROM_EXCHANGES = 16
"""Below this few wake-ups can be saved, and 2 ms count for something."""


class Gathering:
    """Lets what many servers' answers bring be read together, as network cards do: one wake-up then serves many.

    An engine hands out the tokens of one step one after the other. Waking for each of 64 costs more than reading it,
    so with many exchanges under way the event loop rests for 2 ms after it has read, and then finds several.
    """

    def __init__(self) -> None:
        self._num_open = 0
        self._resting = False

    @contextmanager
    def exchange(self) -> Iterator[None]:
        """Count one exchange while it is open."""
        self._num_open += 1
        try:
            yield
        finally:
            self._num_open -= 1

    def arrived(self) -> None:
        """Something was read: rest once all that can be read now has been."""
        if self._num_open >= _REST_FROM_EXCHANGES and not self._resting:
            self._resting = True
            asyncio.get_running_loop().call_soon(self._rest)

    def _rest(self) -> None:
        self._resting = False
        time.sleep(_REST_S)


class _HttpStream(asyncio.Protocol):
    """`status` is a future of the answer's status, `finished` one of its end; `on_body` may be set between the two."""

    def __init__(self, request: bytes, gathering: Gathering) -> None:
        loop = asyncio.get_running_loop()
        self.status: asyncio.Future[int] = loop.create_future()
        self.finished: asyncio.Future[None] = loop.create_future()
        self._request = request
        self._gathering = gathering
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._complete = False
        self._on_body: OnBody | None = None
        self._transport: asyncio.Transport | None = None
        self._closed = False

    def read(self, on_body: OnBody) -> None:
        """Hand the body to `on_body` from now on, first what is there already."""
        self._on_body = on_body
        self._deliver()

    def close(self) -> None:
        """Close the connection, also if it is made only after this."""
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
        """Send the request, if anybody still wants the answer."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        if self._closed:
            self._transport.abort()
        else:
            self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Part of the answer; an answer that is not HTTP ends the exchange."""
        self._gathering.arrived()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail()
        else:
            self._deliver()

    def connection_lost(self, exc: Exception | None) -> None:
        """By either side; an answer that was complete before stays so, also if nobody has read it yet."""
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
        """The whole answer has arrived."""
        self._complete = True


def _set_exception(future: "asyncio.Future[Any]", exc: Exception) -> None:
    future.set_exception(exc)
    future.exception()  # looked at: whoever awaits it is told, and that nobody does any more is no fault


async def post(url: str, body: bytes, gathering: Gathering, reader: Callable[[int], OnBody]) -> None:
    """Send `body` as JSON, and hand the answer to what `reader` makes of its status, until it ends or is enough.

    `url` begins with http://. Leaving closes the connection, which cancels what the server still does for it. Raises
    EngineUnavailable when there is no connection or it breaks off, and whatever the reader raises.
    """
    target = urlsplit(url)
    host, port = target.hostname or "", target.port or 80
    head = (
        f"POST {target.path} HTTP/1.1\r\nHost: {target.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    exchange = _HttpStream(head.encode() + body, gathering)
    connecting = asyncio.ensure_future(asyncio.get_running_loop().create_connection(lambda: exchange, host, port))
    try:
        await _connected(connecting)
        with gathering.exchange():
            exchange.read(reader(await exchange.status))
            await exchange.finished
    finally:
        connecting.cancel()
        exchange.close()


async def _connected(connecting: "asyncio.Future[Any]") -> None:
    """Return when there is a connection. Raises EngineUnavailable.

    Not asyncio.wait_for: up to Python 3.11 it forgets a cancellation that comes together with the connection, and a
    client that left would keep its slot until its answer is complete.
    """
    done, _ = await asyncio.wait({connecting}, timeout=CONNECT_TIMEOUT_S)
    if not done or connecting.exception() is not None:
        raise EngineUnavailable("The engine cannot be reached.") from (connecting.exception() if done else None)
