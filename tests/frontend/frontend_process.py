"""`python -m frontend` as a process of its own, in front of a fake Triton in the test's."""

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web

from tests.e2e.conftest import free_ports
from tests.frontend.conftest import CHAT, body
from tests.frontend.fake_triton import FakeTriton, Script

ROOT = Path(__file__).parents[2]


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
