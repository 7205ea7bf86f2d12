"""The end of the process, as far as requests see it: running answers have a time to finish, new ones are refused."""

import math
import time

CUT_OFF = "The server is shutting down, and the time for running answers is over. Please retry."
"""The message of ShuttingDown to a request that was accepted before."""


class Drain:
    """Whether the server ends, and when. The server begins it; the middleware of the same name answers for it."""

    def __init__(self) -> None:
        self._ends_at: float | None = None

    def begin(self, duration_s: float) -> None:
        """From now on, new requests are refused; those that run have `duration_s` to finish."""
        self._ends_at = time.monotonic() + duration_s

    @property
    def has_begun(self) -> bool:
        """Whether new requests are refused."""
        return self._ends_at is not None

    @property
    def retry_after_s(self) -> int:
        """Whole seconds until the process has ended, at least 1."""
        remaining_s = 0.0 if self._ends_at is None else self._ends_at - time.monotonic()
        return max(1, math.ceil(remaining_s))
