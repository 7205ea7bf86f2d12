"""The queue: bounded, first come first served, and free for whoever leaves it."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from frontend.admission import Admission
from frontend.errors import QueueFull


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 5))


async def hold(admission: Admission, name: str, served: list[str], release: asyncio.Event) -> None:
    async with admission.slot():
        served.append(name)
        await release.wait()


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


def test_one_too_many_is_refused_at_once() -> None:
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


def test_whoever_leaves_the_queue_gives_its_place_to_the_next() -> None:
    async def scenario() -> None:
        admission, served, release = Admission(1, 2), list[str](), asyncio.Event()
        first, leaver, last = [asyncio.create_task(hold(admission, name, served, release)) for name in "abc"]
        await settle()
        leaver.cancel()
        await settle()
        assert admission.num_waiting == 1
        release.set()
        await asyncio.gather(first, last)
        assert (served, admission.num_running) == (["a", "c"], 0)

    run(scenario())


@pytest.mark.parametrize("leaves_first", [True, False])
def test_a_slot_is_not_lost_when_its_heir_leaves_in_the_same_moment(leaves_first: bool) -> None:
    async def scenario() -> None:
        admission, served, release = Admission(1, 2), list[str](), asyncio.Event()
        holder, heir, last = [asyncio.create_task(hold(admission, name, served, release)) for name in "abc"]
        await settle()
        for task in (heir, holder) if leaves_first else (holder, heir):
            task.cancel()
            if task is holder:
                await asyncio.sleep(0)  # the holder hands its slot over before the heir has run
        await settle()
        assert served == ["a", "c"]
        last.cancel()
        await settle()
        assert (admission.num_running, admission.num_waiting) == (0, 0)

    run(scenario())
