"""The frontend as a process that gets signals: readiness ends at once, requests later, and the exit status is 0."""

import asyncio
import json
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from frontend.server.drain import ONE_SIGNAL_S
from tests.e2e.conftest import free_ports
from tests.frontend.conftest import CHAT, body
from tests.frontend.fake_triton import Endless, Events, FakeTriton, Script

DRAIN_S = 6.0
"""Long enough to see what is served meanwhile on a busy machine."""

ROOT = Path(__file__).parents[3]


class Frontend:
    """A process of `python -m frontend`, and a client of it."""

    def __init__(self, process: asyncio.subprocess.Process, client: httpx.AsyncClient, fake: FakeTriton) -> None:
        self.process = process
        self.client = client
        self.triton = fake

    async def status(self, path: str = "/health/ready") -> int:
        """The status of a request on a connection of its own; 0 if it is refused."""
        try:
            return (await self.client.get(path)).status_code
        except httpx.TransportError:
            return 0

    def catches(self, signum: signal.Signals) -> bool:
        """Whether the process has a handler for a signal."""
        (caught,) = re.findall(r"SigCgt:\s*(\w+)", Path(f"/proc/{self.process.pid}/status").read_text())
        return bool(int(caught, 16) >> (signum - 1) & 1)

    async def stream(self, received: list[str]) -> None:
        """Read a streamed answer to its end."""
        async with self.client.stream("POST", CHAT, json=body(stream=True)) as response:
            async for text in response.aiter_text():
                received.append(text)

    async def until(self, path: str, status: int) -> None:
        while await self.status(path) != status:
            await asyncio.sleep(0.1)


@asynccontextmanager
async def started(engine_dir: Path, script: Script, *options: str, has_triton: bool = True) -> AsyncIterator[Frontend]:
    """In front of a fake Triton; without one it waits for it."""
    fake, (port, triton_port) = FakeTriton(), free_ports(2)
    fake.script = script
    runner = web.AppRunner(fake.application(), shutdown_timeout=0.1)
    await runner.setup()
    if has_triton:
        await web.TCPSite(runner, "127.0.0.1", triton_port).start()
    command = [sys.executable, "-m", "frontend", "--engine-dir", str(engine_dir), "--port", str(port)]
    command += ["--triton-url", f"http://127.0.0.1:{triton_port}", "--served-model-name", body()["model"], *options]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stderr=asyncio.subprocess.DEVNULL)
    # No connection is kept: each request has to be accepted.
    limits = httpx.Limits(max_keepalive_connections=0)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=60) as client:
            frontend = Frontend(process, client, fake)
            while has_triton and await frontend.status() != 200:
                assert process.returncode is None
                await asyncio.sleep(0.1)
            yield frontend
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await runner.cleanup()


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 120))


def test_after_sigterm_new_requests_are_served_until_the_drain_is_over_and_running_ones_finish(
    engine_dir: Path,
) -> None:
    async def scenario() -> None:
        slow = [Events([[6004]], pause_s=0.1)] * 120  # longer than the drain
        async with started(engine_dir, slow, "--drain-seconds", str(DRAIN_S)) as frontend:
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


@pytest.mark.parametrize(("first", "second"), [(signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)])
def test_a_second_signal_ends_it_now_and_running_answers_end_with_an_error(
    engine_dir: Path, first: signal.Signals, second: signal.Signals
) -> None:
    async def scenario() -> None:
        async with started(engine_dir, [Endless(6004)], "--drain-seconds", "600") as frontend:
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


@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.3])
def test_a_frontend_that_waits_for_triton_ends_on_sigterm_at_once(engine_dir: Path, after_s: float) -> None:
    """Also while it still puts its parts together: the signal may come at any moment."""

    async def scenario() -> None:
        async with started(engine_dir, [Events([])], has_triton=False) as frontend:
            while not frontend.catches(signal.SIGTERM):
                await asyncio.sleep(0.01)
            await asyncio.sleep(after_s)
            frontend.process.send_signal(signal.SIGTERM)
            assert await frontend.process.wait() == 0

    run(scenario())
