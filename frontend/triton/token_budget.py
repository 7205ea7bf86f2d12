"""How many tokens may be reserved at a time: who comes first gets them first."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol


class Budget(Protocol):
    """A `TokenBudget`, or with several workers the one that they share."""

    def reserved(self, num_tokens: int) -> AbstractAsyncContextManager[None]:
        """See `TokenBudget.reserved`."""


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """A reservation, which `granted` waits for."""

    num_tokens: int
    granted: asyncio.Future[None]


class TokenBudget:
    """For one event loop. A reservation of more than `num_tokens` waits until nothing else is reserved."""

    def __init__(self, num_tokens: int) -> None:
        self._num_tokens = self._num_free = num_tokens
        self._waiting: deque[Turn] = deque()

    @asynccontextmanager
    async def reserved(self, num_tokens: int) -> AsyncIterator[None]:
        """Wait for so many tokens, and give them back at the end of the block."""
        turn = self.queue_up(num_tokens)
        try:
            await turn.granted
            yield
        finally:
            self.end(turn)

    def queue_up(self, num_tokens: int) -> Turn:
        """Wait in order for so many tokens. Needs an `end`."""
        turn = Turn(min(num_tokens, self._num_tokens), asyncio.get_running_loop().create_future())
        self._waiting.append(turn)
        self._grant()
        return turn

    def end(self, turn: Turn) -> None:
        """Give the tokens back, or stop waiting for them."""
        if turn.granted.done() and not turn.granted.cancelled():
            self._num_free += turn.num_tokens
        elif turn in self._waiting:
            self._waiting.remove(turn)
        self._grant()

    def _grant(self) -> None:
        while self._waiting and self._waiting[0].num_tokens <= self._num_free:
            turn = self._waiting.popleft()
            if not turn.granted.cancelled():
                self._num_free -= turn.num_tokens
                turn.granted.set_result(None)
