"""Generations side by side: the first that fails cancels the others, and asyncio logs no forgotten exception."""

import asyncio
import gc
from typing import Any

import pytest

from frontend.errors import EngineFailed
from frontend.server.run import all_of


@pytest.mark.parametrize("cancelled_after", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("num_failures", [1, 2])
def test_cancellation_while_a_generation_fails_is_a_cancellation(
    num_failures: int, cancelled_after: int | None
) -> None:
    """`cancelled_after`: so many steps of the event loop after the failures; None for never."""
    logged: list[Any] = []
    ended: list[str] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: logged.append(context))
        failures = [loop.create_future() for _ in range(num_failures)]

        async def endless() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ended.append("endless")

        async def fails(failure: "asyncio.Future[None]") -> None:
            await failure

        generating = asyncio.ensure_future(all_of([endless(), *map(fails, failures)]))
        await asyncio.sleep(0.01)
        for failure in failures:
            failure.set_exception(EngineFailed("boom"))
        if cancelled_after is not None:
            for _ in range(cancelled_after):
                await asyncio.sleep(0)
        is_cancelled = cancelled_after is not None and generating.cancel()
        with pytest.raises(asyncio.CancelledError if is_cancelled else EngineFailed):
            await generating

    asyncio.run(scenario())
    gc.collect()
    assert ended == ["endless"]
    assert logged == []
