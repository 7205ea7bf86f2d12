"""What clients see while the replicas behind HAProxy are restarted one after the other, and while one is killed.

    python -m tests.benchmarks.rolling_restart [--requests 200] [--clients 8]

Two `python -m frontend.local` on one engine of a tiny Mixtral, HAProxy with docker/haproxy.cfg before them, and clients
that ask without a pause, half of them for streams. Each line of the table is a period of at least so many requests, in
which the named thing happens. It fails if a request fails whose answer had not begun, or if a stream ends early for any
other reason than a kill.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.rolling_restart.balancer import Balancer, balancing
from tests.benchmarks.rolling_restart.clients import MAX_TOKENS, Counts, End, Load
from tests.benchmarks.rolling_restart.replicas import Replica, two_replicas, wait_until_up
from tests.e2e.conftest import SEED_MODEL, free_ports
from tests.mixtral_tokenizer import write_mixtral_tokenizer
from tests.tiny_mixtral import TINY, tiny_tensors, write_checkpoint
from tests.tiny_repository import write_tiny_repository


@dataclass(frozen=True)
class Farm:
    """Two replicas behind HAProxy."""

    replicas: list[Replica]
    balancer: Balancer

    def rolling_restart(self, signum: signal.Signals) -> None:
        """One after the other: stop, start, wait until HAProxy uses it again."""
        for replica in self.replicas:
            replica.stop(signum)
            replica.start_and_wait(self.balancer)

    def kill(self, number: int, name: str) -> None:
        """SIGKILL to a process of one replica, or to its launcher, which takes the others with it; then start it."""
        replica = self.replicas[number]
        if name == "launcher":
            replica.stop(signal.SIGKILL)
        else:
            replica.kill(name)
        replica.start_and_wait(self.balancer)


@contextmanager
def farm(model_repository: Path, directory: Path, *options: str) -> Iterator[Farm]:
    """All of it, ready; `options` are for the replicas. `directory` gets logs."""
    with two_replicas(model_repository, directory, options) as replicas:
        addresses = [replica.address for replica in replicas]
        (port,) = free_ports(1)
        with balancing(directory, port, addresses) as balancer:
            wait_until_up(balancer)
            yield Farm(replicas, balancer)


@dataclass(frozen=True)
class Period:
    """What happened in a period, and what became of its requests. `retries` are HAProxy's."""

    name: str
    counts: Counts
    retries: int
    duration_s: float


async def observe(farm: Farm, load: Load, name: str, event: Callable[[], None], *, num_requests: int) -> Period:
    """Let `event` happen while the load runs, until it is over and `num_requests` have been sent in all."""
    begin, before = time.monotonic(), farm.balancer.num_retries()
    with load.period() as counts:
        await asyncio.sleep(1)
        await asyncio.to_thread(event)
        while counts.sent < num_requests:
            await asyncio.sleep(0.1)
    while counts.ends.total() < counts.sent:
        await asyncio.sleep(0.1)
    return Period(name, counts, farm.balancer.num_retries() - before, time.monotonic() - begin)


def problems(period: Period, *, may_cut: bool) -> list[str]:
    """Requests that failed before their answer began; and, unless a kill was the event, answers that ended early."""
    ends = period.counts.ends
    wrong = [f"{period.name}: failed: {failure}" for failure in period.counts.failures]
    if not may_cut and ends[End.ERROR_EVENT] + ends[End.CUT]:
        wrong.append(f"{period.name}: {ends[End.ERROR_EVENT]} error events, {ends[End.CUT]} answers cut")
    return wrong


HEAD = f"{'':34}{'sent':>7}{'answered':>10}{'retries':>9}{'error event':>13}{'cut':>5}{'failed':>8}{'longest':>9}"


def row(period: Period) -> str:
    """A line of the table."""
    counts = period.counts
    cells = f"{counts.sent:>7}{counts.ends[End.ANSWERED]:>10}{period.retries:>9}{counts.ends[End.ERROR_EVENT]:>13}"
    cells += f"{counts.ends[End.CUT]:>5}{counts.ends[End.FAILED]:>8}{counts.longest_s:>7.1f} s"
    return f"{period.name:34}{cells}"


async def cost(farm: Farm, num_requests: int) -> str:
    """What HAProxy takes for a streamed token, requests included."""
    load = Load(farm.balancer.url, SEED_MODEL, num_clients=8, only_streams=True)
    before_s, before_bytes = farm.balancer.cpu_s(), farm.balancer.num_bytes()
    async with load.running():
        while load.counts.sent < num_requests:
            await asyncio.sleep(0.05)
    tokens = load.counts.ends[End.ANSWERED] * MAX_TOKENS
    spent_us, num_bytes = 1e6 * (farm.balancer.cpu_s() - before_s), farm.balancer.num_bytes() - before_bytes
    return f"HAProxy: {spent_us / tokens:.1f} us of CPU time and {num_bytes / tokens:.0f} bytes for each streamed token"


async def _run(farm: Farm, num_requests: int, num_clients: int) -> list[str]:
    load = Load(farm.balancer.url, SEED_MODEL, num_clients)
    events: list[tuple[str, Callable[[], None], bool]] = [
        ("nothing", lambda: None, False),
        ("rolling restart, SIGTERM", lambda: farm.rolling_restart(signal.SIGTERM), False),
        ("rolling restart, SIGINT", lambda: farm.rolling_restart(signal.SIGINT), False),
        ("kill -9 of a Triton", lambda: farm.kill(0, "triton"), True),
        ("kill -9 of a frontend", lambda: farm.kill(1, "frontend"), True),
        ("kill -9 of a launcher", lambda: farm.kill(0, "launcher"), True),
    ]
    wrong: list[str] = []
    print(await cost(farm, num_requests))
    print(HEAD)
    async with load.running():
        for name, event, may_cut in events:
            period = await observe(farm, load, name, event, num_requests=num_requests)
            print(row(period), flush=True)
            wrong += problems(period, may_cut=may_cut)
    return wrong


def main() -> int:
    """The exit code: 0 if every promise of docs/scale.md held."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.rolling_restart")
    parser.add_argument("--requests", type=int, default=200, help="in each period, at least (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=8, help="at the same time (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        tokenizer = directory / "tokenizer"
        tokenizer.mkdir()
        write_mixtral_tokenizer(tokenizer)
        checkpoint = write_checkpoint(directory / "tiny", TINY, tiny_tensors(TINY), tokenizer)
        repository = write_tiny_repository(directory / "model_repository", checkpoint)
        with farm(repository, directory) as running:
            wrong = asyncio.run(_run(running, arguments.requests, arguments.clients))
    print("\n".join(wrong) or "no request failed whose answer had not begun")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
