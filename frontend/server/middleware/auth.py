"""Who calls, and may they: an API key for every route but the health checks, and limits for each caller.

Refuses to know keys as such: api_keys.py does. Counts in this process alone.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from limits import RateLimitItem
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from starlette.types import ASGIApp, Receive, Scope, Send

from frontend.errors import FrontendError, RateLimitExceeded
from frontend.server.streaming import error_response

from .api_keys import ApiKey, authenticate

_log = logging.getLogger(__name__)

OPEN_PATHS = frozenset({"/health", "/health/live", "/health/ready"})
"""Answered without a key: they say up or down and nothing else, and what asks them (Docker, Kubernetes, load balancers)
should not have to hold a secret. /health/generate makes the engine work, so it is not among them."""


class CallerLimits:
    """What one caller may do with POST, as that makes the engine work; reading costs nothing.

    A caller is an API key. Without keys it is a client's address: behind a proxy on this host the one that the proxy
    puts into X-Forwarded-For. Behind one elsewhere it is the proxy's, so that everybody behind it is one caller, unless
    uvicorn's variable FORWARDED_ALLOW_IPS names it.

    `rate_limit` counts requests as they come, over a sliding window, those included that turn out to be wrong, as
    OpenAI does; `max_requests` those that wait or run, an `n` of several as one.
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
        # Past the moment itself, at which the window still counts whole.
        retry_after_s = max(0, math.floor(window.reset_time - time.time())) + 1
        raise RateLimitExceeded(
            f"You have sent more requests than you may: {self._rate_limit}. Please retry in {retry_after_s} s.",
            retry_after_s=retry_after_s,
        )


class Access:
    """Lets through who may, with the caller's name in the request's state as `caller`."""

    def __init__(self, app: ASGIApp, keys: Sequence[ApiKey], limits: CallerLimits) -> None:
        self._app = app
        self._keys = keys
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer 401 or 429."""
        if scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        async with AsyncExitStack() as request:
            try:
                scope.setdefault("state", {})["caller"] = caller = self._caller(scope)
                if scope["method"] == "POST":
                    await request.enter_async_context(self._limits.request(caller))
            except FrontendError as error:
                _log.info("%s %s: %d %s", scope["method"], scope["raw_path"].decode(), error.status, error.message)
                await error_response(error)(scope, receive, send)
            else:
                await self._app(scope, receive, send)

    def _caller(self, scope: Scope) -> str:
        if self._keys:
            return authenticate(self._keys, dict(scope["headers"]).get(b"authorization"))
        return scope["client"][0] if scope["client"] else "unknown"
