"""What one client can do to the others: each attack on one line, with what it costs the server and a neighbour.

    python -m tests.benchmarks.hostile [--list] [NAME ...]

A NAME selects the attacks that begin with it. The server is `python -m frontend.local` with the engine that is
published in model_repository, or at --engine. Beside the attacker, a neighbour with its own key streams an answer and
asks for short ones with trivial guides, and a probe asks /health/live every 10 ms. Columns:

  pause    longest answer to the probe; behind it the CPU time that the frontend used during an answer, at most. On a
           busy machine the second figure is the one to compare.
  frontend its resident MiB before the attack, at most, and after it
  workers  resident MiB of its compile workers, at most
  triton, engine  resident MiB before and after
  gap, guided     the neighbour's longest gap between tokens, and its slowest short answer
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from build_engine.model_repository import MODEL_REPOSITORY

from . import bodies, connections, engine, guides
from .attack import TINY_CACHE_BYTES, Attack, Outcomes
from .probes import Harm, Pause, Watcher, neighbour, probe
from .stack import Memory, Stack, running

ATTACKS: Sequence[Attack] = (*bodies.ATTACKS, *connections.ATTACKS, *guides.ATTACKS, *engine.ATTACKS)
NOTHING = "nothing"
"""The first line: the same figures while nobody attacks."""
_SAMPLE_S = 0.1
_SETTLE_S = 2.0
_COLUMNS = (
    f"{'attack':22} {'pause':>7} {'cpu':>6}  {'frontend':>16}  {'workers':>7}  {'triton':>9}  {'engine':>11}"
    f"  {'gap':>6} {'guided':>6}  outcome"
)


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    name: str
    outcomes: Outcomes
    pause: Pause
    harm: Harm
    memory: Sequence[Memory]
    alive: bool

    def __str__(self) -> str:
        first, last = self.memory[0], self.memory[-1]
        most = max(memory.frontend for memory in self.memory)
        workers = max(memory.workers for memory in self.memory)
        frontend = f"{first.frontend:.0f} {most:.0f} {last.frontend:.0f}"
        outcome = ", ".join(f"{count} x {what}" for what, count in self.outcomes.most_common())
        troubles = [f"neighbour: {count} x {what}" for what, count in self.harm.outcomes.items()]
        troubles += [f"{self.pause.failures} probes failed"] * bool(self.pause.failures)
        troubles += ["THE SERVER ENDED"] * (not self.alive)
        return (
            f"{self.name:22} {self.pause.longest_s:7.3f} {self.pause.cpu_s:6.3f}  {frontend:>16}  {workers:7.0f}"
            f"  {first.triton:4.0f} {last.triton:4.0f}  {first.engine:5.0f} {last.engine:5.0f}"
            f"  {self.harm.gap_s:6.2f} {self.harm.guided_s:6.2f}  {'; '.join([outcome, *troubles])}"
        )


async def _nothing(_: object) -> Outcomes:
    await asyncio.sleep(3)
    return Outcomes()


async def measure(attack: Attack, stack: Stack, watchers: Sequence[Watcher]) -> Result:
    """One attack, and the figures from before it until `_SETTLE_S` after it."""
    for watcher in watchers:
        watcher.take()
    memory = [stack.memory()]
    sending = asyncio.create_task(attack.send(stack.target))
    while not sending.done():
        await asyncio.wait([sending], timeout=_SAMPLE_S)
        memory.append(stack.memory())
    await asyncio.sleep(_SETTLE_S)
    memory.append(stack.memory())
    pause, harm = [watcher.take() for watcher in watchers]
    return Result(attack.name, sending.result(), pause, harm, memory, stack.alive())


def run(attacks: Iterable[Attack], published: Path, directory: Path, *, tiny_cache: bool) -> None:
    """Print a line for each attack. A server that one of them ended is started again for the next."""
    rest = [Attack(NOTHING, _nothing, tiny_cache), *attacks]
    while rest:
        with running(published, directory, kv_cache_bytes=TINY_CACHE_BYTES if tiny_cache else None) as stack:
            watchers = [Watcher(target, stack.target.port, stack.frontend.pid) for target in (probe, neighbour)]
            try:
                time.sleep(_SETTLE_S)
                while rest and stack.alive():
                    print(asyncio.run(measure(rest.pop(0), stack, watchers)), flush=True)
            finally:
                for watcher in watchers:
                    watcher.stop()


def main() -> int:
    """Exit status 0: this measures, and does not judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.hostile")
    parser.add_argument("names", nargs="*", metavar="NAME", help="how the attacks begin (default: all)")
    parser.add_argument("--list", action="store_true", help="print the names")
    parser.add_argument(
        "--engine", type=Path, default=MODEL_REPOSITORY / "openvino" / "1" / "engine", help="default: %(default)s"
    )
    arguments = parser.parse_args()
    chosen = [attack for attack in ATTACKS if attack.name.startswith(tuple(arguments.names or [""]))]
    if arguments.list:
        print("\n".join(attack.name for attack in chosen))
        return 0
    print(_COLUMNS, flush=True)
    with tempfile.TemporaryDirectory() as directory:
        for tiny_cache in (False, True):
            if of_this := [attack for attack in chosen if attack.tiny_cache == tiny_cache]:
                run(of_this, arguments.engine, Path(directory), tiny_cache=tiny_cache)
    return 0


if __name__ == "__main__":
    sys.exit(main())
