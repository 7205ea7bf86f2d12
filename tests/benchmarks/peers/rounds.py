"""What the servers did, turn by turn."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field

from .load import Stream
from .servers import Running

_SETTLE_S = 5
"""Before each turn: the threads of the server before may look for work for seconds, at the cost of the next one."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one server did in one turn. `api_us`: CPU time of its HTTP process for each token, in microseconds."""

    streams: Sequence[Stream]
    took_s: float
    api_us: float | None

    @property
    def tokens_per_s(self) -> float:
        """Of all streams, prompts included."""
        return sum(stream.num_tokens for stream in self.streams) / self.took_s


@dataclass(slots=True)
class Measured:
    """All rounds of one server by load, and what it took beside."""

    running: Running
    idle_cores: float = 0.0
    peak_mb: float = 0.0
    rounds: dict[str, list[Round]] = field(default_factory=dict)

    def turn(self, name: str, send: Callable[[int, str], Coroutine[None, None, list[Stream]]]) -> None:
        """Take one turn under a load of this name."""
        time.sleep(_SETTLE_S)
        api_s, begin = self.running.api_cpu_s(), time.perf_counter()
        streams = asyncio.run(send(self.running.server.port, self.running.model))
        took_s, num_tokens = time.perf_counter() - begin, sum(stream.num_tokens for stream in streams)
        api_us = None if api_s is None else 1e6 * ((self.running.api_cpu_s() or 0.0) - api_s) / num_tokens
        done = Round(streams, took_s, api_us)
        self.rounds.setdefault(name, []).append(done)
        self.peak_mb = max(self.peak_mb, self.running.memory_mb())
