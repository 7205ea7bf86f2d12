"""Whether anything leaks over thousands of requests, many of which fail or are left: memory, sockets, reservations.

    python -m tests.benchmarks.soak [--requests 20000] [--real]

The frontend runs in its own process, in front of an engine that answers at once. With --real the server is `python -m
frontend.local` with the CPU engine of a tiny Mixtral (or with the one at --engine), and the memory of every process is
printed: frontend, compile workers, Triton, the engine's process. The soak fails if a process grows between
the first tenth of the requests and the end by more than MAX_GROWTH, if sockets stay open, if a generation still runs or
waits at the end, if a status was unexpected, or if the log has a traceback.
"""

import argparse
import asyncio
import re
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.benchmarks import fake_stack
from tests.benchmarks.hostile import stack
from tests.benchmarks.hostile.attack import NEIGHBOUR_KEY
from tests.benchmarks.hostile.stack import Memory
from tests.benchmarks.tiny_engine import KV_CACHE_BYTES, write_tiny_engine

from .requests import KINDS, Clients, engine_steps

MAX_BATCH_SIZE, MAX_QUEUE_LENGTH = 32, 64
OPTIONS = ("--max-queue-length", str(MAX_QUEUE_LENGTH), "--max-body-bytes", "200000")
MAX_GROWTH = {"frontend": 1.10, "workers": 1.50, "triton": 1.10, "engine": 1.15}
"""Memory of each process at the end, as a multiple of that after a tenth of the requests."""


@dataclass(frozen=True)
class Server:
    """The server under test. `memory` has zeros for the processes that it does not have."""

    frontend: psutil.Process
    url: str
    log: Path
    real: stack.Stack | None = None

    def memory(self) -> Memory:
        """Now, of each process, in MiB."""
        if self.real is not None:
            return self.real.memory()
        children = sum(child.memory_info().rss for child in self.frontend.children(recursive=True))
        return Memory(self.frontend.memory_info().rss / 2**20, children / 2**20, 0.0, 0.0)

    def sockets(self) -> int:
        """Connections of the frontend, without those that it listens on."""
        found = self.frontend.net_connections("tcp")
        return sum(1 for connection in found if connection.status != psutil.CONN_LISTEN)


@contextmanager
def serving(directory: Path, engine: Path | None) -> Iterator[Server]:
    """The fake engine's server, or the real one with the engine at `engine`."""
    if engine is None:
        with fake_stack.running(directory, engine_steps, *OPTIONS, max_batch_size=MAX_BATCH_SIZE) as (frontend, port):
            yield Server(frontend, f"http://127.0.0.1:{port}", directory / "frontend.log")
    else:
        with stack.running(engine, directory, *OPTIONS, kv_cache_bytes=KV_CACHE_BYTES) as real:
            yield Server(real.frontend, f"http://127.0.0.1:{real.target.port}", real.log, real)


def settled(server: Server, sockets: int, timeout_s: float = 20.0) -> int:
    """The number of sockets once at most `sockets` are open, or after `timeout_s`."""
    give_up = time.monotonic() + timeout_s
    while (found := server.sockets()) > sockets and time.monotonic() < give_up:
        time.sleep(0.1)
    return found


def held(server: Server, headers: Mapping[str, str]) -> list[str]:
    """The gauges of generations that run or wait which are not 0."""
    request = urllib.request.Request(f"{server.url}/metrics", headers=dict(headers))
    with urllib.request.urlopen(request) as response:
        lines = re.findall(r"^vllm:num_requests_.*", response.read().decode(), re.MULTILINE)
    return [line for line in lines if float(line.rpartition(" ")[2])]


def run(server: Server, clients: Clients, num_requests: int) -> list[str]:
    """Send all requests. Returns the failures."""
    asyncio.run(clients.send(0, len(clients.kinds)))
    idle_sockets = settled(server, 1)
    print(f"at the start: {server.memory()}; {idle_sockets} sockets", flush=True)
    unexpected, begin, sent, readings = asyncio.run(clients.send(0, 0)), time.monotonic(), 0, list[Memory]()
    for part in (0.1, 0.5, 1.0):
        unexpected += asyncio.run(clients.send(sent, int(part * num_requests)))
        sent = int(part * num_requests)
        sockets = settled(server, idle_sockets)
        readings.append(server.memory())
        rate = sent / (time.monotonic() - begin)
        print(f"after {sent} requests: {readings[-1]}; {sockets} sockets, {rate:.0f} requests/s", flush=True)
    wrong = [f"{count} times {status}" for status, count in unexpected.items()] + grown(readings[0], readings[-1])
    if sockets > idle_sockets:
        wrong.append(f"{sockets - idle_sockets} sockets were left open")
    return wrong + held(server, clients.headers)


def grown(before: Memory, after: Memory) -> list[str]:
    """The processes that grew by more than MAX_GROWTH."""
    pairs = {name: (getattr(before, name), getattr(after, name)) for name in MAX_GROWTH}
    return [
        f"the memory of {name} grew from {first:.0f} to {last:.0f} MiB"
        for name, (first, last) in pairs.items()
        if last > MAX_GROWTH[name] * first
    ]


def main() -> int:
    """The exit code: 0 if nothing leaked and no status was unexpected."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.soak")
    parser.add_argument("--requests", type=int, default=20000, help="number of requests (default: %(default)s)")
    parser.add_argument("--real", action="store_true", help="with a real Triton and the CPU engine")
    parser.add_argument("--engine", type=Path, help="for --real; default: one of a tiny Mixtral, with random weights")
    arguments = parser.parse_args()
    kinds = [kind for kind in KINDS if not (arguments.real and kind.fake_only)]
    with tempfile.TemporaryDirectory() as directory:
        engine = arguments.engine or write_tiny_engine(Path(directory) / "tiny") if arguments.real else None
        with serving(Path(directory), engine) as server:
            headers = {"Authorization": f"Bearer {NEIGHBOUR_KEY}"}
            wrong = run(server, Clients(server.url, kinds, headers), arguments.requests)
        if "Traceback" in (text := server.log.read_text()):
            wrong.append("a traceback in the log:\n" + text[text.index("Traceback") :][:3000])
    print("\n".join(wrong) or "nothing leaked")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
