"""Reservations of tokens: never more than the budget, in the order of their coming, and given back in every case."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.triton.token_budget import TokenBudget


async def settle() -> None:
    """Let every task run as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


class Reservation:
    """A task that reserves tokens and keeps them until `end` is called."""

    def __init__(self, budget: TokenBudget, num_tokens: int) -> None:
        self.num_tokens, self.holds = num_tokens, False
        self._ends = asyncio.Event()
        self.task = asyncio.create_task(self._hold(budget))

    async def _hold(self, budget: TokenBudget) -> None:
        async with budget.reserved(self.num_tokens):
            self.holds = True
            try:
                await self._ends.wait()
            finally:
                self.holds = False

    async def end(self) -> None:
        self._ends.set()
        await self.task

    async def cancel(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task


async def reserve(budget: TokenBudget, *sizes: int) -> list[Reservation]:
    reservations = [Reservation(budget, size) for size in sizes]
    await settle()
    return reservations


async def holding(reservations: list[Reservation]) -> list[bool]:
    await settle()
    return [each.holds for each in reservations]


def test_a_reservation_that_does_not_fit_waits_and_so_do_those_behind_it() -> None:
    async def test() -> None:
        budget = TokenBudget(10)
        all_of_them = await reserve(budget, 6, 6, 1)
        assert await holding(all_of_them) == [True, False, False]
        await all_of_them[0].end()
        assert await holding(all_of_them) == [False, True, True]
        for each in all_of_them[1:]:
            await each.end()

    asyncio.run(test())


def test_more_than_the_budget_waits_for_all_of_it() -> None:
    async def test() -> None:
        budget = TokenBudget(10)
        small, large = await reserve(budget, 1, 11)
        assert await holding([small, large]) == [True, False]
        await small.end()
        assert await holding([small, large]) == [False, True]
        await large.end()

    asyncio.run(test())


def test_one_that_is_cancelled_while_it_waits_takes_nothing() -> None:
    async def test() -> None:
        budget = TokenBudget(10)
        first, leaving, last = await reserve(budget, 8, 8, 2)
        await leaving.cancel()
        assert await holding([first, leaving, last]) == [True, False, True]
        await first.cancel()
        (all_of_it,) = await reserve(budget, 8)
        assert all_of_it.holds
        await last.end()
        await all_of_it.end()

    asyncio.run(test())


@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=8), data=st.data())
def test_the_budget_is_kept_in_any_order_of_ends(sizes: list[int], data: st.DataObject) -> None:
    async def test() -> None:
        budget = TokenBudget(10)
        left = await reserve(budget, *sizes)
        while left:
            assert sum(min(each.num_tokens, 10) for each in left if each.holds) <= 10
            assert left[0].holds
            leaving = left.pop(data.draw(st.integers(0, len(left) - 1)))
            await (leaving.end() if leaving.holds and data.draw(st.booleans()) else leaving.cancel())
            await settle()

    asyncio.run(test())
