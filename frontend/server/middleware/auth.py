"""API keys for every route but the health checks and the pages, and limits on the requests of each caller."""

from collections.abc import Sequence
from contextlib import AsyncExitStack

from starlette.types import ASGIApp, Receive, Scope, Send

from frontend.errors import FrontendError, InvalidApiKey
from frontend.server.caller_limits import RequestLimits
from frontend.server.errors import answer_error
from frontend.server.pages import PAGES
from frontend.server.request_record import record_of

from .api_keys import ApiKey, authenticate

OPEN_PATHS = frozenset({"/health", "/health/live", "/health/ready", "/ping", *PAGES})
"""Routes that need no key. Health checks answer up or down and nothing else, and Docker, Kubernetes and load balancers,
which call them, need hold no secret. /health/generate makes the engine work, so it needs a key. Pages hold no data: a
browser cannot send a key when it loads one, and the page asks for the key that its requests need."""


class Auth:
    """Middleware that answers 401 and 429, and puts the caller's name into the request's state as `caller`."""

    def __init__(self, app: ASGIApp, keys: Sequence[ApiKey], limits: RequestLimits) -> None:
        self._app = app
        self._keys = keys
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401 or 429."""
        if scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        async with AsyncExitStack() as request:
            record = record_of(scope)
            try:
                if self._keys:
                    record.key = authenticate(self._keys, _header(scope, "Authorization"), _header(scope, "X-Api-Key"))
                scope["state"]["caller"] = record.caller
                if scope["method"] == "POST":
                    await request.enter_async_context(self._limits.request(record.caller))
            except FrontendError as error:
                await answer_error(scope, error)(scope, receive, send)
            else:
                await self._app(scope, receive, send)


def _header(scope: Scope, header: str) -> bytes | None:
    """A header with a key. Raises InvalidApiKey for two: which one counts would depend on who reads them."""
    given = [value for name, value in scope["headers"] if name == header.lower().encode()]
    if len(given) > 1:
        raise InvalidApiKey(f"Several {header} headers were given. Send one: Authorization: Bearer YOUR_KEY.")
    return given[0] if given else None
