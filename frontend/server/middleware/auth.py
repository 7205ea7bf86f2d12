"""API keys for every route but the health checks and the pages, and limits on the requests of each caller.

Limits count in this process only.
"""

import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from limits import RateLimitItem
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from starlette.types import ASGIApp, Receive, Scope, Send

from frontend.errors import FrontendError, InvalidApiKey, RateLimitExceeded
from frontend.server.errors import answer_error
from frontend.server.pages import PAGES
from frontend.server.request_record import record_of

from .api_keys import ApiKey, authenticate

OPEN_PATHS = frozenset({"/health", "/health/live", "/health/ready", "/ping", *PAGES})
"""Routes that need no key. Health checks answer up or down and nothing else, and Docker, Kubernetes and load balancers,
which call them, need hold no secret. /health/generate makes the engine work, so it needs a key. Pages hold no data: a
browser cannot send a key when it loads one, and the page asks for the key that its requests need."""


class CallerLimits:
    """Limits on the POST requests of each caller. GET requests are not counted: they cost the engine nothing.

    A caller is an API key. Without keys it is a client address. All clients behind a proxy count as one caller, unless
    `forwarded_allow_ips` names the proxy: then it is the address that the proxy writes into X-Forwarded-For.

    `rate_limit` counts requests as they arrive, over a sliding window, invalid ones too, as OpenAI does. `max_requests`
    counts those that wait or run; one with `n` answers counts once.
    """

    def __init__(self, rate_limit: RateLimitItem | None = None, max_requests: int | None = None) -> None:
        self._rate_limit = rate_limit
        self._max_requests = max_requests
        self._rates = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._num_requests: Counter[str] = Counter()

    @asynccontextmanager
    async def request(self, caller: str) -> AsyncIterator[None]:
        """Count one request while it lasts. Raises RateLimitExceeded."""
        if self._num_requests[caller] == self._max_requests:
            raise RateLimitExceeded(f"{self._max_requests} of your requests are under way, the most allowed at a time.")
        self._num_requests[caller] += 1
        try:
            await self._count(caller)
            yield
        finally:
            self._num_requests[caller] -= 1
            if not self._num_requests[caller]:
                del self._num_requests[caller]

    async def _count(self, caller: str) -> None:
        if self._rate_limit is None or await self._rates.hit(self._rate_limit, caller):
            return
        window = await self._rates.get_window_stats(self._rate_limit, caller)
        # Plus one second: at `reset_time` itself the window still counts.
        retry_after_s = max(0, math.floor(window.reset_time - time.time())) + 1
        raise RateLimitExceeded(
            f"You have sent more requests than you may: {self._rate_limit}. Please retry in {retry_after_s} s.",
            retry_after_s=retry_after_s,
        )


class Auth:
    """Middleware that answers 401 and 429, and puts the caller's name into the request's state as `caller`."""

    def __init__(self, app: ASGIApp, keys: Sequence[ApiKey], limits: CallerLimits) -> None:
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
