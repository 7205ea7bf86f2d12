"""What the others feel: a probe of the event loop and a neighbour that streams, each in a process of its own."""

import asyncio
import json
import multiprocessing
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .attack import CHAT, MODEL, NEIGHBOUR_KEY, head, read_to_end, status_of

_PERIOD_S = 0.01
_PATIENCE_S = 300.0
_NEIGHBOUR_ADDRESS = "127.0.0.3"
_GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass
class Pause:
    """Of the event loop, in s: the longest answer to the probe, and the most CPU that the frontend used within one.

    On a busy machine an answer is also late because other processes run; the CPU is the frontend's own.
    """

    longest_s: float = 0.0
    cpu_s: float = 0.0
    failures: int = 0


@dataclass
class Harm:
    """To the neighbour, in s: the longest gap between two tokens, and the slowest answer with a trivial guide."""

    gap_s: float = 0.0
    guided_s: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)


class Watcher:
    """A child process that measures until it is asked for what it has found."""

    def __init__(self, target: "Callable[[Connection[Any, Any], int, int], None]", port: int, pid: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=target, args=(theirs, port, pid), daemon=True)
        self._process.start()

    def take(self) -> Any:
        """What was found since the last call."""
        self._pipe.send("take")
        return self._pipe.recv()

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process, to the nanosecond."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(OSError):  # the thread has ended
            total += int(thread.read_text().split()[0])
    return total / 1e9


def probe(pipe: "Connection[Any, Any]", port: int, pid: int) -> None:
    """GET /health/live each 10 ms on one connection."""
    pause, connection = Pause(), None
    while True:
        cpu, begin = cpu_seconds(pid), time.monotonic()
        try:
            connection = connection or socket.create_connection(("127.0.0.1", port), _PATIENCE_S)
            connection.sendall(_GET)
            if not connection.recv(65536).startswith(b"HTTP/1.1 200"):
                raise ConnectionError
        except OSError:
            pause.failures, connection = pause.failures + 1, None
        pause.longest_s = max(pause.longest_s, time.monotonic() - begin)
        pause.cpu_s = max(pause.cpu_s, cpu_seconds(pid) - cpu)
        if pipe.poll(_PERIOD_S):
            pipe.recv()
            pipe.send(pause)
            pause = Pause()


def neighbour(pipe: "Connection[Any, Any]", port: int, pid: int) -> None:
    """A client with its own key: one stream after the other, and beside it short answers with trivial guides."""
    asyncio.run(Neighbour(port).run(pipe))


class Neighbour:
    """The two loops, and what they found so far."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._harm = Harm()
        self._last: float | None = None
        self._asked: float | None = None

    async def run(self, pipe: "Connection[Any, Any]") -> None:
        """For ever."""
        tasks = [asyncio.create_task(self._repeat(one)) for one in (self._stream, self._guided)]
        while not any(task.done() for task in tasks):
            await asyncio.sleep(0.02)
            if pipe.poll():
                pipe.recv()
                pipe.send(self._taken())
        await asyncio.gather(*tasks)

    def _taken(self) -> Harm:
        now = time.monotonic()
        self._gap(now, self._last)
        self._harm.guided_s = max(self._harm.guided_s, now - (self._asked or now))
        harm, self._harm = self._harm, Harm()
        self._last, self._asked = self._last and now, self._asked and now
        return harm

    def _gap(self, now: float, last: float | None) -> None:
        self._harm.gap_s = max(self._harm.gap_s, now - (last or now))

    async def _repeat(self, one: Callable[[int], Any]) -> None:
        number = 0
        while True:
            number += 1
            try:
                outcome = await one(number)
            except OSError:
                outcome = "closed"
            if outcome != "200":
                self._harm.outcomes[outcome] += 1
            await asyncio.sleep(0.3)

    async def _stream(self, number: int) -> str:
        """Gaps are counted from the first token to the last, not while the request waits."""
        reader, writer = await self._ask(f"Number {number}", stream=True, max_tokens=2000, ignore_eos=True)
        answer = b""
        while piece := await reader.read(1 << 16):
            answer = answer + piece if len(answer) < 1000 else answer[:1000] + piece
            now = time.monotonic()
            self._gap(now, self._last)
            self._last = now
        self._last = None
        writer.close()
        return status_of(answer)

    async def _guided(self, number: int) -> str:
        self._asked = time.monotonic()
        reader, writer = await self._ask("Yes?", guided_choice=[f"yes{number}", "no"], max_tokens=4)
        answer = await read_to_end(reader)
        if self._asked is not None:
            self._harm.guided_s = max(self._harm.guided_s, time.monotonic() - self._asked)
        self._asked = None
        writer.close()
        return status_of(answer)

    async def _ask(self, text: str, **fields: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        messages = [{"role": "user", "content": text}]
        body = json.dumps({"model": MODEL, "messages": messages, "temperature": 0, **fields}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(_NEIGHBOUR_ADDRESS, 0))
        writer.write(head(CHAT, len(body), key=NEIGHBOUR_KEY) + body)
        return reader, writer
