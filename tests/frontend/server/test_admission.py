"""The queue: bounded, fair between callers, in order for each caller, and without lost slots."""

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.errors import InvalidRequest, QueueFull
from frontend.server.admission import Admission, FairQueue, Reservation


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


async def hold(admission: Admission, name: str, served: list[str], release: asyncio.Event, caller: str = "") -> None:
    async with admission.reserve(caller) as reservation:
        await generate(reservation, name, served, release)


async def generate(reservation: Reservation, name: str, served: list[str], release: asyncio.Event) -> None:
    async with reservation.slot():
        served.append(name)
        await release.wait()


async def refused(reserving: AbstractAsyncContextManager[Reservation]) -> None:
    async with reserving:
        raise AssertionError("not refused")


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_requests_are_served_in_the_order_they_came() -> None:
    async def scenario() -> None:
        admission, served, release = Admission(1, 8), list[str](), asyncio.Event()
        tasks = [asyncio.create_task(hold(admission, name, served, release)) for name in "abcd"]
        await settle()
        assert (served, admission.num_running, admission.num_waiting) == (["a"], 1, 3)
        release.set()
        await asyncio.gather(*tasks)
        assert (served, admission.num_running, admission.num_waiting) == (["a", "b", "c", "d"], 0, 0)

    run(scenario())


def test_request_that_does_not_fit_the_queue_is_refused_at_once() -> None:
    async def scenario() -> None:
        admission, served, release = Admission(1, 1), list[str](), asyncio.Event()
        tasks = [asyncio.create_task(hold(admission, name, served, release)) for name in "ab"]
        await settle()
        with pytest.raises(QueueFull):
            await hold(admission, "c", served, release)
        release.set()
        await asyncio.gather(*tasks)
        assert served == ["a", "b"]

    run(scenario())


@pytest.mark.parametrize("status", [429, 503])
def test_a_full_queue_has_the_status_that_the_operator_chose(status: int) -> None:
    async def scenario() -> None:
        admission = Admission(1, 0, status)
        async with admission.reserve("a"):
            with pytest.raises(QueueFull) as caught:
                admission.check_now("b", 1)
        assert (caught.value.status, caught.value.code) == (status, "rate_limit_exceeded")

    run(scenario())


def test_cancelled_waiter_leaves_the_queue() -> None:
    async def scenario() -> None:
        admission, served, release = Admission(1, 4), list[str](), asyncio.Event()
        first, second, last = [asyncio.create_task(hold(admission, name, served, release)) for name in "abc"]
        await settle()
        second.cancel()
        await settle()
        assert admission.num_waiting == 1
        release.set()
        await asyncio.gather(first, last)
        assert (served, admission.num_running) == (["a", "c"], 0)

    run(scenario())


@pytest.mark.parametrize("next_first", [True, False])
def test_a_slot_is_not_lost_when_the_next_waiter_is_cancelled_at_the_same_time(next_first: bool) -> None:
    async def scenario() -> None:
        admission, served, release = Admission(1, 4), list[str](), asyncio.Event()
        holder, following, last = [asyncio.create_task(hold(admission, name, served, release)) for name in "abc"]
        await settle()
        for task in (following, holder) if next_first else (holder, following):
            task.cancel()
            if task is holder:
                await asyncio.sleep(0)  # the holder passes its slot on before the next waiter has run
        await settle()
        assert served == ["a", "c"]
        last.cancel()
        await settle()
        assert (admission.num_running, admission.num_waiting) == (0, 0)

    run(scenario())


@given(st.lists(st.sampled_from("abc")))
def test_callers_are_served_round_robin_and_each_in_order(callers: list[str]) -> None:
    queue: FairQueue[int] = FairQueue()
    for number, caller in enumerate(callers):
        queue.append(caller, number)
    served = [queue.popleft() for _ in range(len(queue))]
    # In rounds: the first item of each caller, in the order in which the callers came, then the second ones, and so on.
    queues = [[number for number, caller in enumerate(callers) if caller == c] for c in dict.fromkeys(callers)]
    rounds = [[items[depth] for items in queues if depth < len(items)] for depth in range(len(callers))]
    assert (served, len(queue)) == ([number for numbers in rounds for number in numbers], 0)


def test_a_caller_with_many_requests_does_not_make_another_wait_for_all_of_them() -> None:
    async def scenario() -> None:
        admission, served, release = Admission(1, 8), list[str](), asyncio.Event()
        names = ["a1", "a2", "a3", "a4", "b1", "b2"]
        tasks = [asyncio.create_task(hold(admission, name, served, release, caller=name[0])) for name in names]
        await settle()
        release.set()
        await asyncio.gather(*tasks)
        assert served == ["a1", "a2", "b1", "a3", "b2", "a4"]

    run(scenario())


def test_generations_of_one_request_start_as_slots_become_free() -> None:
    async def scenario() -> None:
        admission, served = Admission(2, 8), list[str]()
        releases = [asyncio.Event() for _ in range(3)]
        async with admission.reserve("a", 3) as reservation:
            tasks = [asyncio.create_task(generate(reservation, str(i), served, releases[i])) for i in range(3)]
            await settle()
            assert (served, admission.num_running, admission.num_waiting) == (["0", "1"], 2, 1)
            releases[1].set()
            await settle()
            assert (served, admission.num_running, admission.num_waiting) == (["0", "1", "2"], 2, 0)
            for release in releases:
                release.set()
            await asyncio.gather(*tasks)
        assert admission.num_running == 0

    run(scenario())


@pytest.mark.parametrize(("count", "fits"), [(3, True), (4, False)])
def test_all_generations_of_a_request_are_reserved_or_none(count: int, fits: bool) -> None:
    async def scenario() -> None:
        admission, served, release = Admission(2, 3), list[str](), asyncio.Event()
        running = asyncio.create_task(hold(admission, "first", served, release))
        await settle()
        if fits:
            async with admission.reserve("a", count):
                assert (admission.num_running, admission.num_waiting) == (2, 2)
        else:
            with pytest.raises(QueueFull):
                await refused(admission.reserve("a", count))
        assert (admission.num_running, admission.num_waiting) == (1, 0)
        release.set()
        await running

    run(scenario())


def test_an_idle_server_takes_its_capacity_and_no_more() -> None:
    async def scenario() -> None:
        admission = Admission(2, 4)
        admission.check_now("a", 5)
        async with admission.reserve("a", 5):
            assert (admission.num_running, admission.num_waiting) == (2, 3)
        with pytest.raises(InvalidRequest, match=r"6 answers are asked for; this server takes 5 at a time"):
            admission.check_now("a", 6)
        with pytest.raises(QueueFull):
            await refused(admission.reserve("a", 6))

    run(scenario())


def test_a_queue_full_of_one_caller_refuses_that_caller_and_takes_another() -> None:
    async def scenario() -> None:
        admission = Admission(1, 8)
        async with admission.reserve("a", 1 + 6):
            with pytest.raises(QueueFull, match="6 generations of yours are waiting"):
                await refused(admission.reserve("a"))
            async with admission.reserve("b"), admission.reserve("c"):
                assert admission.num_waiting == 8
                with pytest.raises(QueueFull, match="8 generations are waiting"):
                    await refused(admission.reserve("d"))

    run(scenario())


@pytest.mark.parametrize(("max_waiting", "of_one_caller"), [(0, 0), (1, 1), (2, 1), (3, 2), (4, 3), (256, 192)])
def test_a_caller_that_is_alone_has_three_quarters_of_the_queue(max_waiting: int, of_one_caller: int) -> None:
    async def scenario() -> None:
        admission = Admission(1, max_waiting)
        admission.check_now("a", 1 + of_one_caller)
        with pytest.raises(InvalidRequest):
            admission.check_now("a", 1 + of_one_caller + 1)
        async with AsyncExitStack() as reservations:
            for _ in range(1 + of_one_caller):
                await reservations.enter_async_context(admission.reserve("a"))
            with pytest.raises(QueueFull):
                await reservations.enter_async_context(admission.reserve("a"))
        assert (admission.num_running, admission.num_waiting) == (0, 0)

    run(scenario())


@given(st.integers(1, 40), st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 5), st.booleans()), max_size=60))
def test_whatever_two_callers_do_a_third_one_gets_a_place(max_waiting: int, steps: list[tuple[str, int, bool]]) -> None:
    """With 16 places or more even these two leave some; with fewer, one that is alone does."""

    async def scenario() -> None:
        admission = Admission(1, max_waiting)
        async with AsyncExitStack() as reservations, admission.reserve("running"):
            for caller, count, gives_up in steps:
                if max_waiting < 16 and caller == "b":
                    continue
                reservation = AsyncExitStack()
                try:
                    await reservation.enter_async_context(admission.reserve(caller, count))
                except QueueFull:
                    continue
                if gives_up:
                    await reservation.aclose()
                else:
                    reservations.push_async_exit(reservation)
            assert admission.num_waiting <= max_waiting
            if max_waiting > 1:
                async with admission.reserve("new"):
                    assert admission.num_running == 1

    run(scenario())


def test_slots_that_a_request_did_not_take_go_to_the_next_waiter() -> None:
    async def scenario() -> None:
        admission, served, release = Admission(1, 8), list[str](), asyncio.Event()
        async with admission.reserve("a", 3):
            other = asyncio.create_task(hold(admission, "b", served, release, caller="b"))
            await settle()
            assert (served, admission.num_waiting) == ([], 3)
        await settle()
        assert (served, admission.num_running, admission.num_waiting) == (["b"], 1, 0)
        release.set()
        await other

    run(scenario())


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 4), st.sampled_from(["end", "cancel", "stay"])), max_size=12
    )
)
def test_slots_are_neither_lost_nor_idle(arrivals: list[tuple[str, int, str]]) -> None:
    async def scenario() -> None:
        admission, served = Admission(2, 6), list[str]()
        tasks: list[asyncio.Task[None]] = []

        async def request(caller: str, count: int, number: int, release: asyncio.Event) -> None:
            try:
                async with admission.reserve(caller, count) as reservation:
                    names = [f"{caller} {number:02} {i}" for i in range(count)]
                    await asyncio.gather(*[generate(reservation, name, served, release) for name in names])
            except QueueFull:
                pass

        for number, (caller, count, then) in enumerate(arrivals):
            release = asyncio.Event()
            tasks.append(asyncio.create_task(request(caller, count, number, release)))
            await settle()
            if then == "end":
                release.set()
            if then == "cancel":
                tasks[-1].cancel()
            assert admission.num_running <= 2
            assert admission.num_waiting == 0 or admission.num_running == 2
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (admission.num_running, admission.num_waiting) == (0, 0)
        for _, names in groupby(sorted(served, key=lambda name: name[0]), key=lambda name: name[0]):
            assert (order := list(names)) == sorted(order)

    run(scenario())
