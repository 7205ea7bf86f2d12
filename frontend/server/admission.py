"""The bounded queue in front of Triton: fair between callers, in order for each caller, QueueFull when it is full.

One caller cannot fill it: some places stay free for others.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Generic, Protocol, TypeVar

from frontend.errors import InvalidRequest, QueueFull

Item = TypeVar("Item")
Waiter = asyncio.Future[None]
"""A generation that waits for a slot. Done when it has a slot; cancelled when its client has disconnected."""

_SHARE = 3
"""A caller may hold this many times as many places of the queue as stay free."""


class Slots(Protocol):
    """The slots that one request has reserved."""

    def slot(self) -> AbstractAsyncContextManager[None]:
        """Wait for the next of them and hold it. May be entered as often as there are slots, from several tasks."""


class SlotQueue(Protocol):
    """What admits generations to the engine: `Admission`, or with several workers the one that they share."""

    max_running: int
    max_waiting: int

    async def check(self, caller: str, count: int) -> None:
        """See `Admission.check`."""

    def reserve(self, caller: str, count: int = 1) -> AbstractAsyncContextManager[Slots]:
        """See `Admission.reserve`."""


class FairQueue(Generic[Item]):
    """A queue for each caller, served round robin. A caller that starts to wait comes last."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, deque[Item]] = OrderedDict()
        self._len = 0

    def __len__(self) -> int:
        return self._len

    def len_of(self, caller: str) -> int:
        """Items of one caller."""
        return len(self._queues.get(caller, ()))

    def append(self, caller: str, item: Item) -> None:
        """To the end of the caller's queue."""
        self._queues.setdefault(caller, deque()).append(item)
        self._len += 1

    def popleft(self) -> Item:
        """Take the first item of the next caller. There must be one."""
        caller, queue = next(iter(self._queues.items()))
        item = queue.popleft()
        self._queues.move_to_end(caller)
        self._shrink(caller)
        return item

    def discard(self, caller: str, item: Item) -> None:
        """Take the item out of the caller's queue if it is still there; the others keep their order."""
        if item in self._queues.get(caller, ()):
            self._queues[caller].remove(item)
            self._shrink(caller)

    def _shrink(self, caller: str) -> None:
        self._len -= 1
        if not self._queues[caller]:
            del self._queues[caller]


class Admission:
    """At most `max_running` generations at once, and at most `max_waiting` that wait. For one event loop.

    While a generation waits, all slots are taken: a free slot goes to the next waiter in the same step of the loop.

    A caller may wait with one generation if there is a place, and with more as long as they are at most three times as
    many as the places that stay free. So a caller that is alone may hold three quarters of the queue, and the next one
    three quarters of the rest: a full queue of one caller refuses that caller only.
    (Choudhury and Hahne, Dynamic queue length thresholds, 1998.)
    """

    def __init__(self, max_running: int, max_waiting: int, queue_full_status: int = QueueFull.status) -> None:
        self.max_running = max_running
        self.max_waiting = max_waiting
        self._queue_full_status = queue_full_status
        self._waiting: FairQueue[Waiter] = FairQueue()
        self.num_running = 0

    async def check(self, caller: str, count: int) -> None:
        """Raises InvalidRequest if an idle server could not take `count` generations, QueueFull if this one cannot."""
        self.check_now(caller, count)

    def check_now(self, caller: str, count: int) -> None:
        """The same at once."""
        capacity = self.max_running + min(self.max_waiting, max(1, self.max_waiting * _SHARE // (_SHARE + 1)))
        if count > capacity:
            raise InvalidRequest(f"{count} answers are asked for; this server takes {capacity} at a time.", param="n")
        self._check_room(caller, count)

    @property
    def num_waiting(self) -> int:
        """Generations that wait for a slot now."""
        return len(self._waiting)

    @asynccontextmanager
    async def reserve(self, caller: str, count: int = 1) -> "AsyncIterator[Reservation]":
        """Reserve for the `count` generations of one request, all or none: raises QueueFull at once if they do not fit.

        As many as there are free slots may run now. The others wait in the queue of `caller`, and start one by one as
        slots become free. Leaving the `with` block gives up what was not taken with `slot()`.
        """
        reservation = Reservation(self, caller, self.queue_up(caller, count))
        try:
            yield reservation
        finally:
            reservation.give_up()

    def queue_up(self, caller: str, count: int) -> deque[Waiter]:
        """A waiter for each of `count` generations; each needs an `end`. Raises QueueFull if they do not fit."""
        self._check_room(caller, count)
        loop = asyncio.get_running_loop()
        waiters: deque[Waiter] = deque(loop.create_future() for _ in range(count))
        for waiter in waiters:
            self._waiting.append(caller, waiter)
        self._fill()
        return waiters

    def _check_room(self, caller: str, count: int) -> None:
        num_new = count - (self.max_running - self.num_running)
        num_left = self.max_waiting - self.num_waiting - num_new
        num_own = self._waiting.len_of(caller)
        if num_new > 0 and num_left < 0:
            raise self._full(f"{self.num_waiting} generations are waiting")
        if num_new > 0 and num_own + num_new > max(1, _SHARE * num_left):
            raise self._full(f"{num_own} generations of yours are waiting")

    def _full(self, reason: str) -> QueueFull:
        return QueueFull(f"The server is busy: {reason}. Please retry shortly.", status=self._queue_full_status)

    def end(self, caller: str, waiter: Waiter) -> None:
        """Pass the waiter's slot on, or take it out of the queue if it has none."""
        if waiter.done() and not waiter.cancelled():
            self.num_running -= 1
            self._fill()
        else:
            self._waiting.discard(caller, waiter)

    def _fill(self) -> None:
        while self.num_running < self.max_running and self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():  # else its task was cancelled in this step of the loop, and has not run yet
                waiter.set_result(None)
                self.num_running += 1


class Reservation:
    """The slots of one request, taken or waited for; `Admission.reserve` makes it."""

    def __init__(self, admission: Admission, caller: str, waiters: deque[Waiter]) -> None:
        self._admission = admission
        self._caller = caller
        self._waiters = waiters

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for the next of the reserved slots and hold it. May be entered `count` times, from several tasks."""
        waiter = self._waiters.popleft()
        try:
            await waiter
            yield
        finally:
            self._admission.end(self._caller, waiter)

    def give_up(self) -> None:
        """Give up the slots that were not taken. Last first, so that none passes to a waiter that is given up next."""
        while self._waiters:
            self._admission.end(self._caller, self._waiters.pop())
