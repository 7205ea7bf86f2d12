"""Holds what the workers share: the queue, the limits of callers, the budget of alternatives, and the counts.

What a worker holds ends with its connection, so one that dies gives back all of it.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from frontend.errors import FrontendError, RateLimitExceeded
from frontend.server.admission import Admission
from frontend.server.caller_limits import CallerLimits
from frontend.server.load import Load, Totals
from frontend.server.metrics_sum import sum_of
from frontend.settings import Settings
from frontend.triton.token_budget import TokenBudget

from . import messages as m

_REPORT_TIMEOUT_S = 2.0
"""A worker that does not report by then counts with its last report."""

_IN_FLIGHT_S = 0.02
"""A caller that sends one request after the other may send the next one to another worker. Then the `End` of the last
one may arrive after it."""


@dataclass(frozen=True, slots=True)
class _Bounds:
    """What is bounded for all workers together."""

    admission: Admission
    limits: CallerLimits
    budget: TokenBudget


class Coordinator:
    """For one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._bounds: _Bounds | None = None
        self._workers: list[_Worker] = []
        self._all_are_ready = asyncio.Event()
        self._ended = m.Report(0, Totals(), b"")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, on_start: asyncio.Event) -> None:
        """Serve one worker until it ends. `on_start` is set when it is ready."""
        hello = await m.read(reader)
        if isinstance(hello, m.Hello):
            on_start.set()
            worker = _Worker(self._bounds_of(hello), self._overview, writer)
            self._workers.append(worker)
            if len(self._workers) == self._settings.workers:
                self._all_are_ready.set()
            worker.accept_after(self._all_are_ready, hello.number)
            while (message := await m.read(reader)) is not None:
                worker.handle(message)
            self._workers.remove(worker)
            worker.end_all()
            ended = (self._ended, worker.last_report)
            self._ended = m.Report(0, Totals.of(report.totals for report in ended), _counts_of([], *ended))
        writer.close()

    def _bounds_of(self, hello: m.Hello) -> _Bounds:
        """The first worker brings those of the engine, which are the same for all."""
        if self._bounds is None:
            settings = self._settings
            self._bounds = _Bounds(
                Admission(hello.max_running, settings.max_queue_length, settings.queue_full_status),
                CallerLimits(settings.rate_limit, settings.max_requests_per_key),
                TokenBudget(hello.max_gathered_tokens),
            )
        return self._bounds

    async def _overview(self, number: int, with_counts: bool) -> m.Overall:
        """The answer for one worker, of all."""
        assert self._bounds is not None
        workers = list(self._workers)
        await asyncio.gather(*[worker.report(with_counts) for worker in workers])
        reports = [worker.last_report for worker in workers]
        admission = self._bounds.admission
        load = Load(
            num_running=admission.num_running,
            num_waiting=admission.num_waiting,
            totals=Totals.of(report.totals for report in (*reports, self._ended)),
        )
        return m.Overall(number, load, _counts_of(reports, self._ended) if with_counts else b"")


class _Worker:
    """One worker, and how each of the things that it holds or waits for is ended."""

    def __init__(
        self, bounds: _Bounds, overview: Callable[[int, bool], Coroutine[Any, Any, m.Overall]],
        writer: asyncio.StreamWriter,
    ) -> None:  # fmt: skip
        self._bounds = bounds
        self._overview = overview
        self._writer = writer
        self._held: dict[int, Callable[[], object]] = {}
        self._tasks: set[asyncio.Task[object]] = set()
        self._report_ids = count()
        self._reports: dict[int, asyncio.Future[None]] = {}
        self.last_report = m.Report(0, Totals(), b"")

    def handle(self, message: object) -> None:
        """One message, in one step of the loop, so that an `End` finds what it ends."""
        match message:
            case m.Reserve():
                self._reserve(message)
            case m.Check():
                self._check(message)
            case m.CountRequest():
                self._held[message.number] = self._start(self._count(message)).cancel
            case m.ReserveTokens():
                turn = self._bounds.budget.queue_up(message.num_tokens)
                self._hold(message.number, turn.granted, lambda: self._bounds.budget.end(turn))
            case m.End():
                self._held.pop(message.number, lambda: None)()
            case m.AskOverview():
                self._start(self._answer(message))
            case m.Report():
                self._take(message)

    def accept_after(self, event: asyncio.Event, number: int) -> None:
        """Accept what it has asked under that number, once the event is set."""
        waiting = self._start(event.wait())
        waiting.add_done_callback(lambda _: self._send(m.Accepted(number)))

    def end_all(self) -> None:
        """The worker has ended. Last first, so that no slot passes to a waiter that is ended next."""
        while self._held:
            _, end = self._held.popitem()
            end()
        for report in self._reports.values():
            report.cancel()

    async def report(self, with_counts: bool) -> None:
        """Ask for a report and keep it as `last_report`."""
        number, reported = next(self._report_ids), asyncio.get_running_loop().create_future()
        self._reports[number] = reported
        self._send(m.AskReport(number, with_counts))
        await asyncio.wait({reported}, timeout=_REPORT_TIMEOUT_S)
        del self._reports[number]

    def _take(self, report: m.Report) -> None:
        self.last_report = m.Report(0, report.totals, report.counts or self.last_report.counts)
        reported = self._reports.get(report.number)
        if reported is not None and not reported.done():
            reported.set_result(None)

    def _reserve(self, message: m.Reserve) -> None:
        admission, caller = self._bounds.admission, message.caller
        with self._refusing(message.number):
            waiters = admission.queue_up(caller, len(message.slot_ids))
            self._send(m.Accepted(message.number))
            for number, waiter in zip(message.slot_ids, waiters, strict=True):
                self._hold(number, waiter, partial(admission.end, caller, waiter))

    def _check(self, message: m.Check) -> None:
        with self._refusing(message.number):
            self._bounds.admission.check_now(message.caller, message.count)
            self._send(m.Accepted(message.number))

    @contextmanager
    def _refusing(self, number: int) -> Iterator[None]:
        """Answer with the error that the block raises for a client."""
        try:
            yield
        except FrontendError as error:
            self._send(m.Refused(number, error))

    def _hold(self, number: int, granted: "asyncio.Future[None]", end: Callable[[], object]) -> None:
        self._held[number] = end
        granted.add_done_callback(lambda _: self._send(m.Granted(number)))

    async def _count(self, message: m.CountRequest) -> None:
        """Count a request; its `End` ends what has begun here."""
        limits, caller = self._bounds.limits, message.caller
        with self._refusing(message.number):
            try:
                limits.begin(caller)
            except RateLimitExceeded:
                await asyncio.sleep(_IN_FLIGHT_S)
                limits.begin(caller)
            self._held[message.number] = partial(limits.end, caller)
            await limits.count(caller)
            self._send(m.Granted(message.number))

    async def _answer(self, message: m.AskOverview) -> None:
        self._send(await self._overview(message.number, message.with_counts))

    def _send(self, message: object) -> None:
        m.write(self._writer, message)

    def _start(self, work: Coroutine[Any, Any, object]) -> "asyncio.Task[object]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _counts_of(running: list[m.Report], *ended: m.Report) -> bytes:
    """What workers that run and workers that have ended have counted. Reads a thousand lines of each."""
    return sum_of([report.counts for report in running], [report.counts for report in ended])
