"""No body makes others wait, or takes memory that others need: a few of the attacks in tests/benchmarks/hostile.

Not timed by the clock, which on a busy machine counts what other processes do: a pause is the CPU time that the
frontend itself used while a probe of its event loop waited for an answer.
"""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.benchmarks import fake_stack
from tests.benchmarks.hostile import bodies, connections
from tests.benchmarks.hostile.attack import Attack, Outcomes, Target
from tests.benchmarks.hostile.probes import Pause, Watcher, probe
from tests.benchmarks.hostile.stack import max_body_bytes
from tests.frontend.fake_triton import Events, Script

MAX_PAUSE_S = 0.5
"""CPU time in one answer to the probe; 50 ms is what is promised, on a machine that does nothing else."""
MAX_GROWTH_MIB = 150
"""Of the frontend's memory at any moment; 20 MiB are promised for afterwards."""

ATTACKS = (*bodies.ATTACKS, *connections.QUICK)


def answer(_: dict[str, Any]) -> Script:
    """What the engine generates."""
    return [Events([[28705]])]


@dataclass
class Attacked:
    """A frontend that only these tests use."""

    process: psutil.Process
    target: Target
    watcher: Watcher

    def under(self, attack: Attack) -> tuple[Outcomes, Pause, float]:
        """Outcomes, pause, and the most MiB that the frontend took beyond those before."""
        self.watcher.take()
        before = self._resident("VmRSS")
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")  # VmHWM starts from now
        outcomes = asyncio.run(attack.send(self.target))
        return outcomes, self.watcher.take(), self._resident("VmHWM") - before

    def _resident(self, name: str) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
        assert found
        return int(found[1]) / 1024


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """The frontend with the limits as shipped."""
    with fake_stack.running(tmp_path_factory.mktemp("hostile"), answer) as (process, port):
        watcher = Watcher(probe, port, process.pid)
        yield Attacked(process, Target(port, 0, max_body_bytes(port)), watcher)
        watcher.stop()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_one_client_does_not_hurt_the_others(attacked: Attacked, attack: Attack) -> None:
    outcomes, pause, growth = attacked.under(attack)
    assert not {outcome for outcome in outcomes if outcome.startswith(("5", "no answer"))}, outcomes
    assert pause.failures == 0
    assert pause.cpu_s < MAX_PAUSE_S
    assert growth < MAX_GROWTH_MIB
