"""One HTTP connection: uvicorn's, with limits on what a client may send, and how slowly, before any key is checked.

A request line, headers and connections have limits in bytes and number; headers and bodies have a time by which they
must have arrived. What is over a limit gets OpenAI's error body, and the connection is closed. Requests may be sent
ahead of their answers: while enough of them wait, no more are read. A client that does not read its answer is cut off.
A request that arrives in one piece costs no timer, and the parts of an answer cost one only while the client does not
read.
"""

import asyncio
import enum
import logging
from collections.abc import Callable
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from frontend.errors import (
    FrontendError,
    HeadersTooLarge,
    RateLimitExceeded,
    RequestTimeout,
    TooManyConnections,
    UrlTooLong,
)

from .connection_counts import ConnectionCounts
from .connection_flow import Flow, WhileBodyArrives
from .connection_limits import ConnectionLimits
from .connection_refusal import to_bytes, to_error
from .request_head import check_head

_log = logging.getLogger(__name__)

_SLICE_BYTES = 2048
"""Bytes that are parsed at a time: 110 requests at most. One read from the network may hold 9,000."""

_SLICES_PER_TURN = 16
"""Slices until the event loop has its turn. One read from the network may hold 40,000 chunks of a body."""


OnRefusal = Callable[[FrontendError], None]


class _Awaited(enum.Enum):
    """What has to come next from the client."""

    HEADERS = "headers"
    BODY = "body"
    NOTHING = "nothing"
    """The request is complete. uvicorn closes the connection if no other follows its answer for a while."""


class Connection(HttpToolsProtocol):
    """See the module. Other keyword arguments are those of uvicorn."""

    def __init__(
        self, *, limits: ConnectionLimits, counts: ConnectionCounts, on_refusal: OnRefusal, **uvicorn: Any
    ) -> None:
        super().__init__(**uvicorn)
        self._limits = limits
        self._on_refusal = on_refusal
        self._counts = counts
        self._address = ""
        self._is_counted = False
        self._awaited = _Awaited.HEADERS
        self._timer: asyncio.TimerHandle | None = None
        self._timed: _Awaited = _Awaited.NOTHING
        self._write_timer: asyncio.TimerHandle | None = None
        self._got_anything = False
        self._received = memoryview(b"")
        self._next_turn: asyncio.Handle | None = None
        self._refusal: FrontendError | None = None
        self._is_lingering = False
        self._num_discarded_bytes = 0
        self._num_header_bytes = 0
        self._num_unparsed_bytes = 0
        self._parsed_something = False

    # ---- asyncio's callbacks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse the connection if there are too many, else wait for a request."""
        super().connection_made(transport)
        self.flow: Flow = Flow(transport)
        self._address = self.client[0] if self.client else ""
        try:
            self._counts.add(self._address)
        except (TooManyConnections, RateLimitExceeded) as error:
            self._refuse(error)
        else:
            self._is_counted = True
            self._set_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up its place."""
        self._cancel_timer()
        self._cancel_write_timer()
        if self._is_counted:
            self._is_counted = False
            self._counts.remove(self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has come, and start the timer of what has to come next."""
        if self._is_lingering:
            self._discard(len(data))
            return
        self._received = memoryview(bytes(self._received) + data if self._received else data)
        self._parse()

    def _parse(self) -> None:
        """Parse what was received until enough requests wait for an answer. The rest is held back, and no more read."""
        try:
            for _ in range(_SLICES_PER_TURN):
                if not self._may_parse:
                    break
                self._parse_slice(self._received[:_SLICE_BYTES])
        except httptools.HttpParserError as exc:
            self._refuse(to_error(exc))
        except HeadersTooLarge as error:
            self._refuse(error)
        else:
            if self._received:
                self.flow.hold()
            else:
                self.flow.release()
            if self._may_parse and self._next_turn is None:
                self._next_turn = self.loop.call_soon(self._parse_on)
            self._set_timer()

    def _parse_on(self) -> None:
        self._next_turn = None
        self._parse()

    @property
    def _may_parse(self) -> bool:
        is_open = not self._refusal and not self._is_lingering and not self.transport.is_closing()
        return is_open and bool(self._received) and len(self.pipeline) < self._limits.max_pipelined

    def _parse_slice(self, piece: memoryview) -> None:
        num_parsed = len(piece)
        self._parsed_something = False
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as exc:
            _log.info("%s: asks for another protocol, which is ignored", self._address)
            num_parsed = exc.args[0]
        self._check_unparsed(num_parsed)
        self._received = self._received[num_parsed:]

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        self._set_write_timer()

    def resume_writing(self) -> None:
        """The client has read. If the connection is to be closed, it must read the rest in time too."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._cancel_write_timer()

    # ---- uvicorn's callbacks

    def on_response_complete(self) -> None:
        """Go on with what was sent ahead, or wait for the next request, or for the client to read what is left."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._set_write_timer()
        elif self._is_lingering:
            return
        elif self._refusal is None:
            self._parse()
        elif not self._is_answering:
            self._answer_and_close(self._refusal)

    def timeout_keep_alive_handler(self) -> None:
        """No other request has come."""
        super().timeout_keep_alive_handler()
        self._set_write_timer()

    # ---- The parser's callbacks. What they raise is the context of the parser's own exception.

    def on_message_begin(self) -> None:
        """A new request."""
        super().on_message_begin()
        self._cancel_timer()
        self._unset_keepalive_if_required()
        self._parsed_something = self._got_anything = True
        self._awaited = _Awaited.HEADERS
        self._num_header_bytes = 0

    def on_url(self, url: bytes) -> None:
        """A part of the request line."""
        super().on_url(url)
        if len(self.url) > self._limits.max_url_bytes:
            raise UrlTooLong(f"The URL is longer than {self._limits.max_url_bytes} bytes.")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A complete header, or a trailer of the body."""
        self._parsed_something = True
        self._num_header_bytes += len(name) + len(value)
        if self._num_header_bytes > self._limits.max_header_bytes:
            raise self._headers_too_large()
        if len(self.headers) >= self._limits.max_headers:
            raise HeadersTooLarge(f"The request has more than {self._limits.max_headers} headers.")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The body follows, if there is one."""
        check_head(self.parser.get_http_version(), self.headers)
        super().on_headers_complete()
        self._unset_keepalive_if_required()
        self._awaited = _Awaited.BODY
        self.cycle.transport = cast(asyncio.Transport, WhileBodyArrives(self.transport, self._linger))

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._parsed_something = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        super().on_message_complete()
        self.cycle.transport = self.transport
        self._parsed_something = True
        self._awaited = _Awaited.NOTHING

    # ---- Limits

    def _check_unparsed(self, num_bytes: int) -> None:
        """Bound what the parser keeps of a header, a trailer or a chunk's extension that does not end."""
        self._num_unparsed_bytes = 0 if self._parsed_something else self._num_unparsed_bytes + num_bytes
        if self._num_unparsed_bytes > self._limits.max_header_bytes:
            raise self._headers_too_large()

    def _headers_too_large(self) -> HeadersTooLarge:
        return HeadersTooLarge(f"The headers are larger than {self._limits.max_header_bytes} bytes.")

    def _set_timer(self) -> None:
        """Start the timer of what is awaited, unless it runs."""
        if self._timer is not None and self._timed is self._awaited:
            return
        self._cancel_timer()
        self._timed = self._awaited
        if self._awaited is _Awaited.HEADERS:
            self._timer = self.loop.call_later(self._limits.header_timeout_s, self._on_timeout)
        elif self._awaited is _Awaited.BODY:
            self._timer = self.loop.call_later(self._limits.body_timeout_s, self._on_timeout)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timeout(self) -> None:
        """Close the connection, unless its client waits for us: it has sent the next request before its answer."""
        self._timer = None
        waits_for_us = self.pipeline or self.flow.read_paused
        if waits_for_us or (self._awaited is _Awaited.HEADERS and self._is_answering):
            self._set_timer()
        elif not self._got_anything:
            self.transport.close()
        elif self._awaited is _Awaited.HEADERS:
            self._refuse(RequestTimeout(f"The headers did not arrive within {self._limits.header_timeout_s:g} s."))
        else:
            self._refuse(RequestTimeout(f"The body did not arrive within {self._limits.body_timeout_s:g} s."))

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _may_answer(self) -> bool:
        """Whether the next bytes that the client gets would be the answer to what it is sending."""
        if self._awaited is _Awaited.HEADERS:
            return not self._is_answering
        return self._is_answering and not self.cycle.response_started and not self.pipeline

    def _refuse(self, error: FrontendError) -> None:
        """Answer if an answer can be sent, and close the connection. Requests that came before are answered first."""
        _log.info(
            "%s: %d %s", self._address, error.status, error.message,
            extra={"event": "refused", "address": self._address, "status": error.status, "reason": error.message},
        )  # fmt: skip
        self._on_refusal(error)
        self._cancel_timer()
        if self._awaited is _Awaited.HEADERS and self._is_answering:
            self._refusal = error
            self.flow.hold()
        else:
            self._answer_and_close(error)

    def _answer_and_close(self, error: FrontendError) -> None:
        if self._may_answer:
            path = "" if self._awaited is _Awaited.HEADERS else self.cycle.scope["path"]
            self.transport.write(to_bytes(error, self.server_state.default_headers, path))
        if self._is_counted and not self._is_answering:
            self._linger()
        else:
            self._close()

    # ---- The end of a connection

    def _close(self) -> None:
        self.transport.close()
        self._set_write_timer()

    def _linger(self) -> None:
        """End what is sent, but discard for a while what the client still sends.

        The system resets a connection that is closed before all was read, and the client would lose its answer.
        """
        if self._is_answering:  # the answer broke off: its client must see that
            self._close()
            return
        self._is_lingering = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._received = memoryview(b"")
        self.flow.release()
        self.flow.resume_reading()
        self._cancel_timer()
        self._timer = self.loop.call_later(self._limits.linger_s, self._close)

    def _discard(self, num_bytes: int) -> None:
        self._num_discarded_bytes += num_bytes
        if self._num_discarded_bytes > self._limits.max_discarded_bytes:
            self._close()

    def _set_write_timer(self) -> None:
        """Drop what the client has not read by then. A closed transport would wait for ever."""
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self._limits.write_timeout_s, self._on_write_timeout)

    def _cancel_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _on_write_timeout(self) -> None:
        _log.info("%s: does not read its answer, and is cut off", self._address)
        self.transport.abort()


def connection_factory(
    limits: ConnectionLimits, counts: ConnectionCounts, on_refusal: OnRefusal = lambda error: None
) -> Callable[..., Connection]:
    """What uvicorn calls for each connection. `on_refusal` gets the error of each one that is refused."""
    return lambda **uvicorn: Connection(limits=limits, counts=counts, on_refusal=on_refusal, **uvicorn)
