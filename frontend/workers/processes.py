"""Starts the workers of one address, starts again one that dies, and ends them all after a signal.

Each worker has sockets of its own for the address (SO_REUSEPORT), so the kernel divides connections among the workers
that listen. One that has died gets none.
"""

import asyncio
import logging
import math
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import ExitStack, suppress
from dataclasses import replace

from frontend.errors import StartupError
from frontend.settings import Settings

from .addresses import Addresses
from .coordinator import Coordinator
from .start import Start

_log = logging.getLogger(__name__)

_RESTART_AFTER_S = 1.0


async def serve_with_workers(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT with as many workers as the settings say. Raises StartupError."""
    workers = _Workers(settings)
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, workers.end, signum)
    await workers.run()


class _Workers:
    def __init__(self, settings: Settings) -> None:
        # Of one engine, though another is published before a worker is started again.
        self._settings = replace(settings, engine_dir=settings.engine_dir.resolve())
        self._coordinator = Coordinator(settings)
        self._addresses = Addresses(settings.host, settings.port)
        self._processes: set[Process] = set()
        self._is_ending = False

    def end(self, signum: int) -> None:
        """Every worker ends in order, as a server with one process does. A second signal ends them now."""
        self._is_ending = True
        for process in self._processes:
            with suppress(ProcessLookupError):  # it has ended just now
                process.send_signal(signum)

    async def run(self) -> None:
        """Until all have ended. Raises StartupError if one of them does not start; it has said why."""
        started = asyncio.Event()
        first = asyncio.create_task(self._keep(0, started))
        # Before the others: what no worker can start with is one line of the log then, not several.
        await asyncio.wait([first, asyncio.create_task(started.wait())], return_when=asyncio.FIRST_COMPLETED)
        numbers = range(1, self._settings.workers if started.is_set() else 1)
        await asyncio.gather(first, *[self._keep(number, asyncio.Event()) for number in numbers])

    async def _keep(self, number: int, started: asyncio.Event) -> None:
        """Start a worker, and again whenever it ends, until the server ends."""
        while True:
            exit_code = await self._run(number, started)
            if self._is_ending:
                return
            if not started.is_set():
                raise StartupError(f"worker {number} has not started; its exit code is {exit_code}")
            _log.error("worker %d has ended with exit code %d, and is started again", number, exit_code)
            await asyncio.sleep(_RESTART_AFTER_S)

    async def _run(self, number: int, started: asyncio.Event) -> int:
        """One worker from its start to its end. Returns its exit code."""
        ours, its = socket.socketpair()
        with its:
            process = await self._start(number, its.fileno())
        self._processes.add(process)
        if self._is_ending:
            process.terminate()
        await self._coordinator.serve(*await asyncio.open_connection(sock=ours), started)
        exit_code = await process.wait()
        self._processes.discard(process)
        return exit_code

    async def _start(self, number: int, link: int) -> Process:
        with ExitStack() as stack:
            listeners = tuple(listener.fileno() for listener in self._addresses.for_a_worker(stack))
            command = [sys.executable, "-m", "frontend.worker"]
            process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, pass_fds=(*listeners, link))
        assert process.stdin is not None
        process.stdin.write(Start(_settings_of(number, self._settings), listeners, link).to_bytes())
        process.stdin.close()
        return process


def _settings_of(number: int, settings: Settings) -> Settings:
    """Each worker has its share of the connections, which the kernel divides about evenly; the first one logs stats."""
    return replace(
        settings,
        max_connections=math.ceil(settings.max_connections / settings.workers),
        max_connections_per_address=math.ceil(settings.max_connections_per_address / settings.workers),
        disable_log_stats=settings.disable_log_stats or number > 0,
    )
