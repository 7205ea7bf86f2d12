"""A bounded queue in front of Triton: first come, first served, and a clear no when it is full.

Refuses to know what is being admitted: it counts.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .errors import QueueFull


class Admission:
    """At most `max_running` holders at once and `max_waiting` behind them. For one event loop."""

    def __init__(self, max_running: int, max_waiting: int) -> None:
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.num_running = 0

    @property
    def num_waiting(self) -> int:
        """Requests that wait for a slot now."""
        return len(self._waiting)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a slot and hold it; leaving the queue costs nothing. Raises QueueFull at once if it is full."""
        await self._enter()
        try:
            yield
        finally:
            self._leave()

    async def _enter(self) -> None:
        if self.num_running < self._max_running:
            self.num_running += 1
            return
        if len(self._waiting) >= self._max_waiting:
            raise QueueFull(f"The server is busy: {len(self._waiting)} requests are waiting. Please retry shortly.")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._leave()  # the slot was handed over in the same turn of the loop that cancelled us
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise

    def _leave(self) -> None:
        """Hand the slot to whoever waits longest, so that nobody can slip in between."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.num_running -= 1
