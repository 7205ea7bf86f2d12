"""The frontend as a process that gets signals: readiness ends at once, requests later, and the exit status is 0.

With several workers as with one process.
"""

import asyncio
import json
import signal
import time
from pathlib import Path

import pytest

from frontend.server.drain import ONE_SIGNAL_S
from tests.frontend.fake_triton import Endless, Events
from tests.frontend.frontend_process import run, started

DRAIN_S = 6.0
"""Long enough to see what is served meanwhile on a busy machine."""

in_one_process_and_in_two = pytest.mark.parametrize("workers", ["1", "2"])


@in_one_process_and_in_two
def test_after_sigterm_new_requests_are_served_until_the_drain_is_over_and_running_ones_finish(
    engine_dir: Path, workers: str
) -> None:
    async def scenario() -> None:
        slow = [Events([[6004]], pause_s=0.1)] * 120  # longer than the drain
        async with started(engine_dir, slow, "--workers", workers, "--drain-seconds", str(DRAIN_S)) as frontend:
            assert await frontend.status() == 200
            frontend.process.send_signal(signal.SIGTERM)
            sent = time.monotonic()
            await frontend.until("/health/ready", 503)
            assert await frontend.status("/v1/models") == 200
            received: list[str] = []
            streams = [asyncio.create_task(frontend.stream(received)) for _ in range(3)]
            await frontend.until("/v1/models", 503)
            assert time.monotonic() - sent >= DRAIN_S
            await asyncio.gather(*streams)
            assert "".join(received).count("data: [DONE]") == len(streams)
            assert await frontend.process.wait() == 0
            assert await frontend.status() == 0

    run(scenario())


def test_ctrl_c_does_not_wait_for_load_balancers(engine_dir: Path) -> None:
    async def scenario() -> None:
        async with started(engine_dir, [Events([[6004]])], "--drain-seconds", "600") as frontend:
            frontend.process.send_signal(signal.SIGINT)
            assert await frontend.process.wait() == 0

    run(scenario())


@in_one_process_and_in_two
@pytest.mark.parametrize(("first", "second"), [(signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)])
def test_a_second_signal_ends_it_now_and_running_answers_end_with_an_error(
    engine_dir: Path, workers: str, first: signal.Signals, second: signal.Signals
) -> None:
    async def scenario() -> None:
        async with started(engine_dir, [Endless(6004)], "--workers", workers, "--drain-seconds", "600") as frontend:
            received: list[str] = []
            stream = asyncio.create_task(frontend.stream(received))
            while not received:
                await asyncio.sleep(0.01)
            frontend.process.send_signal(first)
            await frontend.until("/health/ready", 503)
            await asyncio.sleep(2 * ONE_SIGNAL_S)
            frontend.process.send_signal(second)
            assert await frontend.process.wait() == 0
            await stream
            last = json.loads("".join(received).split("data: ")[-1])
            assert last["error"]["code"] == "shutting_down"

    run(scenario())


@in_one_process_and_in_two
@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.3])
def test_a_frontend_that_waits_for_triton_ends_on_sigterm_at_once(
    engine_dir: Path, workers: str, after_s: float
) -> None:
    """Also while it still puts its parts together: the signal may come at any moment."""

    async def scenario() -> None:
        async with started(engine_dir, [Events([])], "--workers", workers, has_triton=False) as frontend:
            while not frontend.catches(signal.SIGTERM):
                await asyncio.sleep(0.01)
            await asyncio.sleep(after_s)
            frontend.process.send_signal(signal.SIGTERM)
            assert await frontend.process.wait() == 0

    run(scenario())
