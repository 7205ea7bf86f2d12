"""When a process that has ended is started again: soon at first, later after longer waits, and not without end."""

from collections import deque

MAX_RESTARTS = 5
PERIOD_S = 600.0
"""At most MAX_RESTARTS within PERIOD_S: what ends more often has a cause that starting it again does not mend."""

_LONGEST_WAIT_S = 16.0


class Restarts:
    """Counts the ends of processes. With `max_restarts` 0 nothing is started again."""

    def __init__(self, max_restarts: int = MAX_RESTARTS) -> None:
        self._max_restarts = max_restarts
        self._ends: deque[float] = deque()

    def wait_after_end(self, now: float) -> float | None:
        """Seconds to wait before the start, for an end at `now` by a monotonic clock; None: it is not started again."""
        while self._ends and self._ends[0] <= now - PERIOD_S:
            self._ends.popleft()
        self._ends.append(now)
        earlier = len(self._ends) - 1
        if earlier >= self._max_restarts:
            return None
        return min(2.0 ** (earlier - 1), _LONGEST_WAIT_S) if earlier else 0.0
