"""The end of the process, as far as requests see it, in two parts: readiness first, requests later.

In the first part readiness answers 503, so that a load balancer sends new requests elsewhere, and all else is served as
before. In the second, running answers have a time to finish, and new requests are refused.
"""

import math
import time

CUT_OFF = "The server is shutting down, and the time for running answers is over. Please retry."
"""The message of ShuttingDown to a request that was accepted before."""

ONE_SIGNAL_S = 0.2
"""Signals that follow each other faster are one: process managers send one to a process and to its group."""


class Drain:
    """Whether the server ends, and when. The server begins it; the middleware of the same name answers for it."""

    def __init__(self) -> None:
        self._refuses_at: float | None = None
        self._ends_at: float | None = None

    def announce(self, duration_s: float) -> None:
        """From now on the server is not ready any more. It serves new requests for `duration_s` all the same."""
        self._refuses_at = time.monotonic() + duration_s

    def begin(self, duration_s: float) -> None:
        """From now on, new requests are refused; those that run have `duration_s` to finish."""
        self._ends_at = time.monotonic() + duration_s

    @property
    def is_announced(self) -> bool:
        """Whether readiness answers 503."""
        return self._refuses_at is not None or self.has_begun

    @property
    def serves_for_s(self) -> float:
        """Seconds for which new requests are still served after `announce`; 0 when they are over."""
        return 0.0 if self._refuses_at is None else max(0.0, self._refuses_at - time.monotonic())

    @property
    def has_begun(self) -> bool:
        """Whether new requests are refused."""
        return self._ends_at is not None

    @property
    def retry_after_s(self) -> int:
        """Whole seconds until the process has ended, or until it refuses requests; at least 1."""
        remaining_s = self.serves_for_s if self._ends_at is None else self._ends_at - time.monotonic()
        return max(1, math.ceil(remaining_s))
