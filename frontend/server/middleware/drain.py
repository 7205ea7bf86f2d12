"""503 with `Retry-After` while the server ends: readiness first, then new requests, then those whose time is over."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from frontend.errors import ShuttingDown
from frontend.server.drain import CUT_OFF, Drain
from frontend.server.errors import answer_error

_ANSWERED = frozenset({"/health/live", "/metrics"})
"""Routes that answer to the end: the process is alive, and an operator sees how many answers still run."""

_READINESS = frozenset({"/health", "/health/ready", "/ping"})
"""Routes that load balancers ask whether to send requests here."""


class RefuseInDrain:
    """Middleware for `Drain`. A request whose time is over finds its task cancelled by the server."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 503. An answer that has begun ends itself: see `cancel_on_disconnect`."""
        if refusal := self._refusal(scope["path"]):
            error = ShuttingDown(refusal, retry_after_s=self._drain.retry_after_s)
            await answer_error(scope, error)(scope, receive, send)
            return
        has_begun = False

        async def noting_send(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting_send)
        except asyncio.CancelledError:
            if has_begun:
                raise
            await answer_error(scope, ShuttingDown(CUT_OFF))(scope, receive, send)

    def _refusal(self, path: str) -> str | None:
        """The message of the 503 for a new request; None: it is served."""
        if self._drain.has_begun and path not in _ANSWERED:
            return "The server is shutting down and takes no more requests."
        if self._drain.is_announced and path in _READINESS:
            return "The server is about to shut down. It still answers requests; send new ones elsewhere."
        return None
