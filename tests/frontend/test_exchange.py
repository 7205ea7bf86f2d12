"""Resting between reads: only with many exchanges under way, and once for all that was read together."""

import asyncio
import time
from contextlib import ExitStack

import pytest

from frontend.exchange import Gathering


@pytest.mark.parametrize(("num_open", "rests"), [(0, 0), (15, 0), (16, 1), (64, 1)])
def test_the_loop_rests_once_for_all_that_arrived_together(
    num_open: int, rests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rested: list[float] = []
    monkeypatch.setattr(time, "sleep", rested.append)

    async def read_all() -> None:
        gathering = Gathering()
        with ExitStack() as exchanges:
            for _ in range(num_open):
                exchanges.enter_context(gathering.exchange())
            for _ in range(num_open):
                gathering.arrived()
            await asyncio.sleep(0)

    asyncio.run(read_all())
    assert rested == [0.002] * rests


def test_an_exchange_that_ended_no_longer_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    rested: list[float] = []
    monkeypatch.setattr(time, "sleep", rested.append)

    async def read_after_the_end() -> None:
        gathering = Gathering()
        with ExitStack() as exchanges:
            for _ in range(16):
                exchanges.enter_context(gathering.exchange())
        gathering.arrived()
        await asyncio.sleep(0)

    asyncio.run(read_after_the_end())
    assert rested == []
