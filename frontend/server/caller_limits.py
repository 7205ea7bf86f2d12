"""Limits on the POST requests of each caller: how many in a while, and how many at a time."""

import math
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from limits import RateLimitItem
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from frontend.errors import RateLimitExceeded


class RequestLimits(Protocol):
    """`CallerLimits`, or with several workers those that they share."""

    def request(self, caller: str) -> AbstractAsyncContextManager[None]:
        """See `CallerLimits.request`."""


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
        self.begin(caller)
        try:
            await self.count(caller)
            yield
        finally:
            self.end(caller)

    def begin(self, caller: str) -> None:
        """One more request waits or runs, until `end`. Raises RateLimitExceeded."""
        if self._num_requests[caller] == self._max_requests:
            raise RateLimitExceeded(f"{self._max_requests} of your requests are under way, the most allowed at a time.")
        self._num_requests[caller] += 1

    def end(self, caller: str) -> None:
        """A request that has begun is over."""
        self._num_requests[caller] -= 1
        if not self._num_requests[caller]:
            del self._num_requests[caller]

    async def count(self, caller: str) -> None:
        """One more request has arrived. Raises RateLimitExceeded."""
        if self._rate_limit is None or await self._rates.hit(self._rate_limit, caller):
            return
        window = await self._rates.get_window_stats(self._rate_limit, caller)
        # Plus one second: at `reset_time` itself the window still counts.
        retry_after_s = max(0, math.floor(window.reset_time - time.time())) + 1
        raise RateLimitExceeded(
            f"You have sent more requests than you may: {self._rate_limit}. Please retry in {retry_after_s} s.",
            retry_after_s=retry_after_s,
        )
