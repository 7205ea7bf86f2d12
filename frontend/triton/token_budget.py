"""How many tokens may be reserved at a time: who comes first gets them first."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class TokenBudget:
    """For one event loop. A reservation of more than `num_tokens` waits until nothing else is reserved."""

    def __init__(self, num_tokens: int) -> None:
        self._num_tokens = self._num_free = num_tokens
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def reserved(self, num_tokens: int) -> AsyncIterator[None]:
        """Wait for so many tokens, and give them back at the end of the block."""
        wanted, granted = min(num_tokens, self._num_tokens), asyncio.get_running_loop().create_future()
        turn = wanted, granted
        self._waiting.append(turn)
        self._grant()
        try:
            await granted
            yield
        finally:
            if granted.done() and not granted.cancelled():
                self._num_free += wanted
            elif turn in self._waiting:
                self._waiting.remove(turn)
            self._grant()

    def _grant(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._num_free:
            wanted, granted = self._waiting[0]
            self._waiting.popleft()
            if not granted.cancelled():
                self._num_free -= wanted
                granted.set_result(None)
