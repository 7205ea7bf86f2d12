"""What many replicas need beside GPUs: processors, network, storage, time, spares. Each figure has its source."""

from dataclasses import dataclass

FRONTEND_CPU_S_PER_TOKEN = 74e-6
"""Of one core, requests included, with answers of 157 tokens: README.md, by `python -m tests.benchmarks.serving`."""

BALANCER_CPU_S_PER_TOKEN = 25e-6
"""Of one core, requests included: 20 to 43 us in four runs of `python -m tests.benchmarks.rolling_restart`."""

BYTES_PER_TOKEN = 259
"""Of an event of a chat's stream with its framing, as HAProxy counts them, by the same command."""

ENGINE_BYTES = 25.2e9
"""Of a Mixtral-8x7B in 4 bits: `make plan`."""

LOADING_S = 30.0
"""To start the processes and to copy the engine into the GPU at some GB/s. An estimate."""

DRAIN_S = 5.0 + 30.0
"""--drain-seconds and --shutdown-timeout-s: the most that a replica takes to end."""

GPU_HOURS_PER_FAILURE = 16384 * 54 * 24 / 419
"""419 unexpected interruptions of 16,384 H100s in 54 days: The Llama 3 Herd of Models, arXiv 2407.21783."""


@dataclass(frozen=True)
class Needs:
    """Of `replicas` that together generate `tokens_per_s`."""

    replicas: int
    tokens_per_s: float

    @property
    def frontend_cores(self) -> float:
        """Busy cores of the frontend of one replica. It is one process with one event loop: at 1 it is full."""
        return FRONTEND_CPU_S_PER_TOKEN * self.tokens_per_s / self.replicas

    @property
    def balancer_cores(self) -> float:
        """Busy cores of all HAProxies together."""
        return BALANCER_CPU_S_PER_TOKEN * self.tokens_per_s

    @property
    def gigabits_per_s(self) -> float:
        """From all replicas to the balancers, and as much again to the clients."""
        return 8e-9 * BYTES_PER_TOKEN * self.tokens_per_s

    @property
    def hours_between_failures(self) -> float:
        """Of one GPU or another."""
        return GPU_HOURS_PER_FAILURE / self.replicas


def restart_s(replicas: int, at_a_time: int, storage_bytes_per_s: float) -> float:
    """A rolling restart, where replicas that start together share a storage of this speed."""
    rounds = -(-replicas // at_a_time)
    return rounds * (DRAIN_S + at_a_time * ENGINE_BYTES / storage_bytes_per_s + LOADING_S)
