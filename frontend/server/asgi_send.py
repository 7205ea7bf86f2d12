"""Send parts of an ASGI response from a callback, where nothing can be awaited.

A server's `send` suspends only while its client reads too slowly. So its coroutine is stepped by hand, which almost
always completes it. When it does suspend, a task completes it, and later messages wait in order.
"""

import asyncio
import types
from collections import deque
from collections.abc import Coroutine, Generator
from functools import partial
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class DirectSend:
    """Middleware that keeps the server's own `send` for bodies: each wrapper around it costs a coroutine per token."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with `send` in the scope."""
        await self._app({**scope, "direct_send": send}, receive, send)


def shortest_send(scope: Scope, send: Send) -> Send:
    """A `send` for a whole response: its start through all middleware, which may add headers; its body directly."""
    direct: Send = scope.get("direct_send", send)
    return lambda message: (direct if message["type"] == "http.response.body" else send)(message)


class Sender:
    """Sends messages in order. `drain` raises the errors of `send`."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: deque[Message] = deque()
        self._stalled: asyncio.Task[None] | None = None

    def send(self, message: Message) -> None:
        """Send now, or when the client has read the messages before this one."""
        if self._stalled is not None:
            self._waiting.append(message)
            return
        sending = self._send(message)
        assert isinstance(sending, Coroutine)
        try:
            awaited = sending.send(None)
        except StopIteration:
            return
        self._stalled = asyncio.ensure_future(self._catch_up(sending, awaited))

    async def drain(self) -> None:
        """Return when all is sent."""
        while self._stalled is not None:
            await self._stalled

    async def _catch_up(self, sending: Coroutine[Any, Any, None], awaited: Any) -> None:
        try:
            await _go_on(sending, awaited)
            while self._waiting:
                await self._send(self._waiting.popleft())
        finally:
            self._stalled = None


@types.coroutine
def _go_on(coroutine: Coroutine[Any, Any, None], awaited: Any) -> Generator[Any, Any, None]:
    """The rest of a coroutine whose first step was made by hand and returned `awaited`."""
    while True:
        try:
            value = yield awaited
        except BaseException as exc:
            step = partial(coroutine.throw, exc)
        else:
            step = partial(coroutine.send, value)
        try:
            awaited = step()
        except StopIteration:
            return
