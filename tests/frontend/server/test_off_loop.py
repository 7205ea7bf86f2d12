"""Large bodies in threads."""

import asyncio
import sys
import threading
from types import SimpleNamespace
from typing import Any

from frontend.server.off_loop import OffLoop


async def _stays() -> Any:
    await asyncio.sleep(60)


def test_a_thread_keeps_the_gil_for_a_fraction_of_pythons_interval_while_the_loop_waits() -> None:
    OffLoop()
    assert sys.getswitchinterval() < 0.001


def test_small_bodies_stay_in_the_loop_and_large_ones_go_to_a_thread() -> None:
    http: Any = SimpleNamespace(receive=_stays)

    async def scenario() -> None:
        off_loop, here = OffLoop(), threading.current_thread()
        assert await off_loop.run(threading.current_thread, http, 1000, 5) is here
        assert await off_loop.run(threading.current_thread, http, 100_000, 5) is not here

    asyncio.run(scenario())
