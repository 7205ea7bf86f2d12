"""The shared parts of a server, as one of its workers sees them: each asks the coordinator."""

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager

from frontend.server.admission import SlotQueue
from frontend.server.caller_limits import CallerLimits, RequestLimits
from frontend.server.load import Load, Overview
from frontend.server.overview import OwnCounts
from frontend.settings import Settings
from frontend.triton.token_budget import Budget

from . import messages as m
from .link import Expected, Link


class Linked:
    """See `Shared`. Callers without limits are not counted."""

    def __init__(self, link: Link, settings: Settings) -> None:
        self._link = link
        self._max_waiting = settings.max_queue_length
        has_limits = settings.rate_limit is not None or settings.max_requests_per_key is not None
        self.limits: RequestLimits = _Limits(link) if has_limits else CallerLimits()

    def to_budget(self, num_tokens: int) -> Budget:
        """See `Shared`."""
        self._max_gathered_tokens = num_tokens
        return _Budget(self._link)

    async def start(self, max_running: int, own: OwnCounts) -> tuple[SlotQueue, Overview]:
        """See `Shared`."""
        self._link.own = own
        await self._link.ask(lambda number: m.Hello(number, max_running, self._max_gathered_tokens))
        return _Queue(self._link, max_running, self._max_waiting), _Overview(self._link)


class _Limits:
    def __init__(self, link: Link) -> None:
        self._link = link

    @asynccontextmanager
    async def request(self, caller: str) -> AsyncIterator[None]:
        """See `CallerLimits.request`."""
        async with _held(self._link, lambda number: m.CountRequest(number, caller)):
            yield


class _Budget:
    def __init__(self, link: Link) -> None:
        self._link = link

    @asynccontextmanager
    async def reserved(self, num_tokens: int) -> AsyncIterator[None]:
        """See `TokenBudget.reserved`."""
        async with _held(self._link, lambda number: m.ReserveTokens(number, num_tokens)):
            yield


@asynccontextmanager
async def _held(link: Link, to_message: Callable[[int], object]) -> AsyncIterator[None]:
    """Wait until the coordinator grants what the message asks for; end it with the block."""
    with link.expect() as (number, granted):
        link.send(to_message(number))
        try:
            await granted
            yield
        finally:
            link.send(m.End(number))


class _Queue:
    def __init__(self, link: Link, max_running: int, max_waiting: int) -> None:
        self._link = link
        self.max_running = max_running
        self.max_waiting = max_waiting

    async def check(self, caller: str, count: int) -> None:
        """See `Admission.check`."""
        await self._link.ask(lambda number: m.Check(number, caller, count))

    @asynccontextmanager
    async def reserve(self, caller: str, count: int = 1) -> "AsyncIterator[_Slots]":
        """See `Admission.reserve`."""
        with ExitStack() as expected:
            slots = deque(expected.enter_context(self._link.expect()) for _ in range(count))
            slot_ids = [number for number, _ in slots]
            try:
                await self._link.ask(lambda number: m.Reserve(number, slot_ids, caller))
                yield _Slots(self._link, slots)
            finally:
                while slots:  # last first, so that no slot passes to a waiter that is given up next
                    number, _ = slots.pop()
                    self._link.send(m.End(number))


class _Slots:
    def __init__(self, link: Link, slots: "deque[Expected]") -> None:
        self._link = link
        self._slots = slots

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """See `Slots.slot`."""
        number, granted = self._slots.popleft()
        try:
            await granted
            yield
        finally:
            self._link.send(m.End(number))


class _Overview:
    def __init__(self, link: Link) -> None:
        self._link = link

    async def load(self) -> Load:
        """See `Overview.load`."""
        answer: m.Overall = await self._link.ask(lambda number: m.AskOverview(number, with_counts=False))
        return answer.load

    async def counts(self) -> bytes:
        """See `Overview.counts`."""
        answer: m.Overall = await self._link.ask(lambda number: m.AskOverview(number, with_counts=True))
        return answer.counts
