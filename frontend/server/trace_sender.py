"""Sends encoded traces to a collector, many at a time, from the event loop.

What the collector does not take in time is dropped, with a line in the log.
"""

import asyncio
import logging
from contextlib import suppress
from urllib.parse import urlsplit

import aiohttp
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

from .trace_settings import ExportSettings

_log = logging.getLogger(__name__)

_PAUSES_S = (1.0, 2.0, 4.0)
"""Before each try after the first, as OpenTelemetry's exporters make them; all within the time limit."""

_TRY_AGAIN = frozenset({429, 502, 503, 504})


class NotTaken(Exception):
    """The collector has not taken the spans; the message says why."""


class TraceSender:
    """Sends to the collector at `endpoint`, a URL. `origin` has the resource and the scope of all spans."""

    def __init__(self, endpoint: str, origin: ResourceSpans, settings: ExportSettings) -> None:
        self._endpoint = endpoint
        self._origin = origin
        self._settings = settings
        self._waiting: list[bytes] = []
        self._num_waiting = self._num_dropped = 0
        self._is_enough = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None

    def add(self, trace: bytes, num_spans: int) -> None:
        """Send this ScopeSpans some time. Dropped if too many wait, as when the collector is slow."""
        if self._num_waiting + num_spans > self._settings.max_waiting:
            self._num_dropped += num_spans
            return
        self._waiting.append(trace)
        self._num_waiting += num_spans
        if self._num_waiting >= self._settings.batch_size:
            self._is_enough.set()
        if self._sending is None or self._sending.done():
            self._sending = asyncio.ensure_future(self._send_for_ever())

    async def close(self) -> None:
        """Send what is left. Takes the time limit at most."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait([self._sending])
        async with self._session() as session:
            await self._send(session)

    async def _send_for_ever(self) -> None:
        async with self._session() as session:
            while True:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._is_enough.wait(), self._settings.delay_s)
                self._is_enough.clear()
                await self._send(session)

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            headers={**self._settings.headers, "content-type": "application/x-protobuf"},
            connector=aiohttp.TCPConnector(ssl=self._settings.tls or True),
            trust_env=True,
        )

    async def _send(self, session: aiohttp.ClientSession) -> None:
        """All that waits. Cancelled before it is taken, it waits again."""
        if not self._waiting:
            return
        traces, num_spans = self._waiting, self._num_waiting
        self._waiting, self._num_waiting = [], 0
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await self._post(session, self._request(traces))
        except asyncio.CancelledError:
            self._waiting, self._num_waiting = traces + self._waiting, num_spans + self._num_waiting
            raise
        except (NotTaken, TimeoutError) as exc:
            host, reason = urlsplit(self._endpoint).hostname, str(exc) or "no answer in time"
            _log.warning("traces: %s does not take them: %s; %d spans are dropped", host, reason, num_spans)
        if self._num_dropped:
            most = self._settings.max_waiting
            _log.warning("traces: %d spans are dropped, as more than %d would have waited", self._num_dropped, most)
            self._num_dropped = 0

    def _request(self, traces: list[bytes]) -> bytes:
        request = ExportTraceServiceRequest(resource_spans=[self._origin])
        request.resource_spans[0].scope_spans[0].MergeFromString(b"".join(traces))
        return request.SerializeToString()

    async def _post(self, session: aiohttp.ClientSession, body: bytes) -> None:
        """Raises NotTaken."""
        for pause_s in (*_PAUSES_S, None):
            try:
                async with session.post(
                    self._endpoint, data=body, compress=self._settings.compression, allow_redirects=False
                ) as response:
                    if response.ok:
                        return
                    reason, is_final = f"status {response.status}", response.status not in _TRY_AGAIN
            except aiohttp.ClientError as exc:
                reason, is_final = str(exc) or type(exc).__name__, False
            if is_final or pause_s is None:
                raise NotTaken(reason)
            await asyncio.sleep(pause_s)
