"""A bounded queue in front of Triton: fair between keys, in order for each of them, and a clear no when it is full.

Refuses to know what is being admitted, and whom a key stands for: it counts.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Generic, TypeVar

from frontend.errors import QueueFull

Item = TypeVar("Item")
Turn = asyncio.Future[None]
"""Done when it has a slot; cancelled when whoever waited for it has left."""


class FairQueue(Generic[Item]):
    """Each key has a line of its own, and the lines are served in turn. A key that starts to wait comes last."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, deque[Item]] = OrderedDict()
        self._len = 0

    def __len__(self) -> int:
        return self._len

    def append(self, key: str, item: Item) -> None:
        """To the end of the key's line."""
        self._lines.setdefault(key, deque()).append(item)
        self._len += 1

    def popleft(self) -> Item:
        """The first of the line whose turn it is. Somebody must be waiting."""
        key, line = next(iter(self._lines.items()))
        item = line.popleft()
        self._lines.move_to_end(key)
        self._shrink(key)
        return item

    def discard(self, key: str, item: Item) -> None:
        """Take it out of the key's line, if it is still there; the others keep their places."""
        if item in self._lines.get(key, ()):
            self._lines[key].remove(item)
            self._shrink(key)

    def _shrink(self, key: str) -> None:
        self._len -= 1
        if not self._lines[key]:
            del self._lines[key]


class Admission:
    """At most `max_running` generations at once and `max_waiting` behind them. For one event loop.

    As long as one waits, every slot is taken; a slot that comes free goes to the next in the same step.
    """

    def __init__(self, max_running: int, max_waiting: int) -> None:
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._waiting: FairQueue[Turn] = FairQueue()
        self.num_running = 0

    @property
    def capacity(self) -> int:
        """Generations that one reservation can ask for: more would be refused by an idle server too."""
        return self._max_running + self._max_waiting

    @property
    def num_waiting(self) -> int:
        """Generations that wait for a slot now."""
        return len(self._waiting)

    @contextmanager
    def reserve(self, key: str, count: int = 1) -> "Iterator[Reservation]":
        """Places for the `count` generations of one request, all or none: raises QueueFull at once if they do not fit.

        As many as there are free slots may run from now on; the others wait in the line of `key`, one behind the other,
        and start one by one as slots come free, each when it is its key's turn. Leaving the `with` block gives up what
        was not taken with `slot()`; a place in the queue costs nothing.
        """
        places = Reservation(self, key, self._queue_up(key, count))
        try:
            yield places
        finally:
            places.give_up()

    @asynccontextmanager
    async def slot(self, key: str = "") -> AsyncIterator[None]:
        """Reserve for one generation, wait for its slot and hold it. Raises QueueFull."""
        with self.reserve(key) as reservation:
            async with reservation.slot():
                yield

    def _queue_up(self, key: str, count: int) -> deque[Turn]:
        num_free = self._max_running - self.num_running
        if self.num_waiting + count - num_free > self._max_waiting:
            raise QueueFull(f"The server is busy: {self.num_waiting} generations are waiting. Please retry shortly.")
        loop = asyncio.get_running_loop()
        turns: deque[Turn] = deque(loop.create_future() for _ in range(count))
        for turn in turns:
            self._waiting.append(key, turn)
        self._fill()
        return turns

    def end(self, key: str, turn: Turn) -> None:
        """Pass its slot on, or leave the queue if it has none."""
        if turn.done() and not turn.cancelled():
            self.num_running -= 1
            self._fill()
        else:
            self._waiting.discard(key, turn)

    def _fill(self) -> None:
        while self.num_running < self._max_running and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # else its task was cancelled in this very step of the loop, and has not run yet
                turn.set_result(None)
                self.num_running += 1


class Reservation:
    """The places of one request; `Admission.reserve` makes it."""

    def __init__(self, admission: Admission, key: str, turns: deque[Turn]) -> None:
        self._admission = admission
        self._key = key
        self._turns = turns

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for the next of the reserved slots and hold it. May be entered `count` times, from several tasks."""
        turn = self._turns.popleft()
        try:
            await turn
            yield
        finally:
            self._admission.end(self._key, turn)

    def give_up(self) -> None:
        """Let go of the places that were not taken, the last first: no slot is passed to one that leaves next."""
        while self._turns:
            self._admission.end(self._key, self._turns.pop())
