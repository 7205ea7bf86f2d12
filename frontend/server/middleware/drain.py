"""503 with `Retry-After` while the server ends: to new requests at once, to running ones when their time is over."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from frontend.errors import ShuttingDown
from frontend.server.drain import CUT_OFF, Drain
from frontend.server.errors import answer_error

_ANSWERED = frozenset({"/health/live", "/metrics"})
"""Routes that answer to the end: the process is alive, and an operator sees how many answers still run."""


class RefuseInDrain:
    """Middleware for `Drain`. A request whose time is over finds its task cancelled by the server."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 503. An answer that has begun ends itself: see `cancel_on_disconnect`."""
        if self._drain.has_begun and scope["path"] not in _ANSWERED:
            error = ShuttingDown(
                "The server is shutting down and takes no more requests.", retry_after_s=self._drain.retry_after_s
            )
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
