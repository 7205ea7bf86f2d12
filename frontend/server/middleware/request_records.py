"""One record for each request, reported when it has ended, however it ended: to the log and to the metrics."""

import time
from collections.abc import Callable, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from frontend.server.request_record import RequestRecord, record_of

OnArrival = Callable[[RequestRecord, Scope], None]
"""Called once for each request, before anything is done for it."""

Reporter = Callable[[RequestRecord], None]
"""Called once for each request, at its end."""


class RequestRecords:
    """Middleware around all that can answer."""

    def __init__(self, app: ASGIApp, reporters: Sequence[Reporter], on_arrival: OnArrival | None = None) -> None:
        self._app = app
        self._reporters = reporters
        self._on_arrival = on_arrival

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its record, which `record_of` returns."""
        record = record_of(scope)
        if self._on_arrival is not None:
            self._on_arrival(record, scope)

        async def noting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting_send)
        finally:
            record.took_s = time.monotonic() - record.arrived_at
            for report in self._reporters:
                report(record)
