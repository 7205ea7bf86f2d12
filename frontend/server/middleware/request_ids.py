"""X-Request-Id: the client's or a new one, sent back with every response and written in every line of the log.

Anthropic's clients read it as Request-Id, so responses of that API have it under both names.

It is not passed on to Triton.
"""

import re
import secrets

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from frontend.anthropic.errors import is_anthropics
from frontend.server.log import REQUEST_ID

_HEADER = b"x-request-id"
_ANTHROPICS_HEADER = b"request-id"
_ACCEPTED = re.compile(rb"[A-Za-z0-9_.:=+/-]{1,128}")
"""Enough for UUIDs, ULIDs, traceparent, base64 and names. No space or bracket, which could feign other parts of a line
of the log."""


class RequestIds:
    """The outermost middleware, so that every response has an id. An id that is not accepted is replaced."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with REQUEST_ID set for the rest of its task: the server runs one for each request."""
        given = next((value for name, value in scope["headers"] if name == _HEADER), b"")
        request_id = given if _ACCEPTED.fullmatch(given) else b"req_%b" % secrets.token_hex(16).encode()
        REQUEST_ID.set(request_id.decode())
        names = (_HEADER, _ANTHROPICS_HEADER) if is_anthropics(scope["path"]) else (_HEADER,)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *((name, request_id) for name in names)]}
            await send(message)

        await self._app(scope, receive, send_with_id)
