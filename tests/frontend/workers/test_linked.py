"""What workers share through their coordinator holds for all of them together, whatever becomes of one."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.errors import InvalidRequest, QueueFull, RateLimitExceeded, ShuttingDown
from frontend.server.admission import SlotQueue
from frontend.server.load import Overview, Totals
from frontend.server.overview import OwnCounts
from frontend.settings import Settings
from frontend.workers.coordinator import Coordinator
from frontend.workers.link import Link
from frontend.workers.linked import Linked
from tests.frontend.frontend_process import run


class Counts:
    """What one worker has counted: so many tokens of answers."""

    def __init__(self, num_tokens: int) -> None:
        self.num_tokens = num_tokens

    def totals(self) -> Totals:
        return Totals(num_generation_tokens=self.num_tokens, last_output_at=float(self.num_tokens))

    def text(self) -> bytes:
        return (
            f"# HELP tokens_total Of answers.\n# TYPE tokens_total counter\ntokens_total {self.num_tokens}.0\n".encode()
        )


class Worker:
    """One worker of a server, in the test's loop."""

    queue: SlotQueue
    overview: Overview

    def __init__(self, writer: asyncio.StreamWriter, linked: Linked, num_tokens: int) -> None:
        self._writer = writer
        self._linked = linked
        self.budget = linked.to_budget(10)
        self.limits = linked.limits
        self.counts = Counts(num_tokens)

    async def start(self, max_running: int) -> None:
        """Returns when all workers have started."""
        self.queue, self.overview = await self._linked.start(max_running, cast(OwnCounts, self.counts))

    def die(self) -> None:
        """As if killed."""
        self._writer.transport.abort()


@dataclass(slots=True)
class Coordination:
    """The coordinator's end of each link: the task that serves it, and its writer."""

    serving: "list[asyncio.Task[None]]"
    writers: list[asyncio.StreamWriter]


@asynccontextmanager
async def workers(number: int, *options: str, max_running: int = 1) -> AsyncIterator[tuple[list[Worker], Coordination]]:
    settings = Settings.from_args(
        ["--engine-dir", "/engine", "--workers", str(number), "--max-queue-length", "8", *options], {}
    )
    coordinator, ends = Coordinator(settings), Coordination([], [])
    started, reading = list[Worker](), list[asyncio.Task[None]]()
    for index in range(number):
        ours, its = socket.socketpair()
        streams = await asyncio.open_connection(sock=ours)
        ends.writers.append(streams[1])
        ends.serving.append(asyncio.create_task(coordinator.serve(*streams, asyncio.Event())))
        reader, writer = await asyncio.open_connection(sock=its)
        link = Link(reader, writer)
        reading.append(asyncio.create_task(link.run()))
        started.append(Worker(writer, Linked(link, settings), num_tokens=10**index))
    await asyncio.gather(*[worker.start(max_running) for worker in started])
    try:
        yield started, ends
    finally:
        for worker in started:
            worker.die()
        await asyncio.gather(*ends.serving, *reading)


async def num_running(worker: Worker) -> tuple[int, int]:
    load = await worker.overview.load()
    return load.num_running, load.num_waiting


@asynccontextmanager
async def running(queue: SlotQueue, caller: str = "a") -> AsyncIterator[None]:
    """A generation in the engine."""
    async with queue.reserve(caller) as slots, slots.slot():
        yield


async def hold(queue: SlotQueue) -> None:
    """Wait for a slot, and keep it."""
    async with running(queue):
        await asyncio.Event().wait()


def test_the_engine_never_has_more_generations_than_slots() -> None:
    async def scenario() -> None:
        async with workers(2, max_running=2) as ((first, second), _), running(first.queue), running(second.queue):
            assert await num_running(first) == await num_running(second) == (2, 0)
            third = asyncio.create_task(hold(second.queue))
            while await num_running(first) != (2, 1):
                pass
            assert not third.done()
            third.cancel()
            while await num_running(first) != (2, 0):
                pass

    run(scenario())


def test_a_slot_goes_to_the_callers_of_all_workers_in_turn() -> None:
    async def scenario() -> None:
        served = list[str]()

        async def serve(queue: SlotQueue, name: str) -> None:
            async with running(queue, name[0]):
                served.append(name)

        async with workers(2) as ((first, second), _):
            async with running(first.queue):
                tasks = []
                for worker, name in ((first, "b1"), (first, "b2"), (first, "b3"), (second, "c1"), (second, "b4")):
                    tasks.append(asyncio.create_task(serve(worker.queue, name)))
                    while (await num_running(first))[1] != len(tasks):
                        pass
            await asyncio.gather(*tasks)
            assert served == ["b1", "c1", "b2", "b3", "b4"]
            assert await num_running(second) == (0, 0)

    run(scenario())


def test_the_queue_is_one_for_all() -> None:
    async def scenario() -> None:
        async with workers(2, "--queue-full-status", "503") as ((first, second), _), running(first.queue):
            async with first.queue.reserve("a", 6), second.queue.reserve("b"), second.queue.reserve("c"):
                for worker in (first, second):
                    with pytest.raises(QueueFull, match="8 generations are waiting") as caught:
                        await running(worker.queue, "d").__aenter__()
                    assert (caught.value.status, dict(caught.value.headers)) == (503, {"retry-after": "1"})
                    with pytest.raises(QueueFull):
                        await worker.queue.check("d", 1)
            assert await num_running(first) == (1, 0)
            await second.queue.check("d", 1)
            with pytest.raises(InvalidRequest, match="8 answers are asked for; this server takes 7 at a time") as wrong:
                await second.queue.check("d", 8)
            assert wrong.value.param == "n"

    run(scenario())


def test_a_rate_counts_the_requests_of_all_workers() -> None:
    async def scenario() -> None:
        async with workers(2, "--rate-limit", "2/minute") as ((first, second), _):
            async with first.limits.request("a"), second.limits.request("a"):
                pass
            for worker in (first, second):
                with pytest.raises(RateLimitExceeded, match="2 per 1 minute") as caught:
                    await worker.limits.request("a").__aenter__()
                assert 0 < int(caught.value.headers["retry-after"]) <= 61
                async with worker.limits.request("b"):
                    pass

    run(scenario())


def test_the_concurrent_requests_of_a_caller_count_over_all_workers_until_they_end() -> None:
    async def scenario() -> None:
        async with workers(2, "--max-requests-per-key", "1") as ((first, second), _):
            for worker, other in ((first, second), (second, first)):
                async with worker.limits.request("a"), other.limits.request("b"):
                    with pytest.raises(RateLimitExceeded, match="1 of your requests are under way"):
                        await other.limits.request("a").__aenter__()
            first.die()
            async with second.limits.request("a"):
                pass

    run(scenario())


def test_the_budget_of_alternatives_is_one_for_all() -> None:
    async def scenario() -> None:
        async with workers(2) as ((first, second), _):
            async with first.budget.reserved(8):
                waiting = asyncio.create_task(second.budget.reserved(3).__aenter__())
                await num_running(second)
                assert not waiting.done()
            await waiting

    run(scenario())


def test_what_a_worker_held_is_free_when_it_dies() -> None:
    async def scenario() -> None:
        async with workers(2, max_running=1) as ((first, second), ends), AsyncExitStack() as held:
            await held.enter_async_context(running(first.queue))
            await held.enter_async_context(first.queue.reserve("a", 3))
            await held.enter_async_context(first.budget.reserved(10))
            first.die()
            await ends.serving[0]
            async with running(second.queue), second.budget.reserved(10):
                assert await num_running(second) == (1, 0)

    run(scenario())


def test_what_waits_when_the_coordinator_ends_is_refused_and_what_runs_goes_on() -> None:
    async def scenario() -> None:
        async with workers(1) as ((worker,), ends), running(worker.queue):
            waiting = asyncio.create_task(hold(worker.queue))
            while (await num_running(worker))[1] != 1:
                pass
            ends.writers[0].transport.abort()
            with pytest.raises(ShuttingDown):
                await waiting
            with pytest.raises(ShuttingDown):
                await worker.overview.load()

    run(scenario())


def test_the_overview_is_of_all_workers_and_keeps_what_an_ended_one_has_counted() -> None:
    async def scenario() -> None:
        async with workers(3) as ((first, second, third), ends):
            for worker in (first, second, third):
                load = await worker.overview.load()
                assert (load.totals.num_generation_tokens, load.totals.last_output_at) == (111, 100)
                assert b"tokens_total 111.0\n" in await worker.overview.counts()
            second.die()
            await ends.serving[1]
            first.counts.num_tokens = 2
            assert (await third.overview.load()).totals.num_generation_tokens == 112
            assert b"tokens_total 112.0\n" in await third.overview.counts()

    run(scenario())


requests = st.tuples(
    st.integers(0, 2), st.sampled_from("ab"), st.integers(1, 3), st.sampled_from(["end", "cancel", "stay", "die"])
)


@given(st.lists(requests, max_size=10))
def test_slots_are_neither_lost_nor_given_twice(arrivals: list[tuple[int, str, int, str]]) -> None:
    async def scenario() -> None:
        in_engine = 0

        async def request(worker: Worker, caller: str, count: int, ends: asyncio.Event) -> None:
            nonlocal in_engine
            try:
                async with worker.queue.reserve(caller, count) as slots:
                    for _ in range(count):
                        async with slots.slot():
                            in_engine += 1
                            assert in_engine <= 2
                            try:
                                await ends.wait()
                            finally:
                                in_engine -= 1
            except (QueueFull, ShuttingDown):
                pass

        async with workers(4, max_running=2) as (all_workers, ends):
            *mortal, immortal = all_workers
            tasks, owners = list[asyncio.Task[Any]](), list[int]()
            all_ends = list[asyncio.Event]()
            for index, caller, count, then in arrivals:
                if ends.serving[index].done():
                    continue
                all_ends.append(asyncio.Event())
                tasks.append(asyncio.create_task(request(mortal[index], caller, count, all_ends[-1])))
                owners.append(index)
                if then != "cancel":  # else it may be cancelled before it has sent anything
                    await num_running(immortal)
                if then == "end":
                    all_ends[-1].set()
                elif then == "cancel":
                    tasks[-1].cancel()
                elif then == "die":
                    for owner, task in zip(owners, tasks, strict=True):
                        if owner == index:
                            task.cancel()  # its process is gone
                    mortal[index].die()
                    await ends.serving[index]
            for each in all_ends:
                each.set()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert await num_running(immortal) == (0, 0)
            async with running(immortal.queue), running(immortal.queue):
                pass

    run(scenario())
