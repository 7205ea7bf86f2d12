"""Two replicas as `make run` starts them, on one engine, and the ways in which they end."""

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.benchmarks.rolling_restart.balancer import Balancer
from tests.e2e.conftest import Server, free_ports, start_local, wait_for, wait_until_serving

OPTIONS = ("--queue-full-status", "503", "--forwarded-allow-ips", "127.0.0.1", "--shutdown-timeout-s", "30")
"""What docker/haproxy.cfg asks of a replica."""

_END_TIMEOUT_S = 90.0


@dataclass
class Replica:
    """One `python -m frontend.local`, which can be started again in its place. `name` is that in HAProxy."""

    name: str
    model_repository: Path
    runtime_dir: Path
    ports: list[int]
    options: tuple[str, ...]
    server: Server | None = None

    @property
    def address(self) -> str:
        """Where the API listens."""
        return f"127.0.0.1:{self.ports[0]}"

    def start(self) -> Server:
        """Without waiting."""
        self.runtime_dir.mkdir(exist_ok=True)
        self.server = start_local(self.model_repository, self.runtime_dir, *self.options, ports=self.ports)
        return self.server

    def start_and_wait(self, balancer: Balancer) -> None:
        """Until the balancer sends requests to it."""
        wait_until_serving(self.start())
        wait_for(lambda: balancer.states()[self.name] == "UP", f"HAProxy to take {self.name}", 30)

    def stop(self, signum: signal.Signals) -> None:
        """Send the signal, and wait for the end. After SIGTERM and SIGINT the exit status must be 0."""
        assert self.server is not None
        self.server.process.send_signal(signum)
        status = self.server.process.wait(_END_TIMEOUT_S)
        assert signum is signal.SIGKILL or status == 0, f"{self.name} ended with status {status}"

    def kill(self, name: str) -> None:
        """SIGKILL to its `frontend` or its `triton`. The launcher then ends the other, and itself."""
        assert self.server is not None
        children = psutil.Process(self.server.process.pid).children()
        (child,) = (child for child in children if ("triton" if "tritonserver" in child.name() else "frontend") == name)
        child.kill()
        assert self.server.process.wait(_END_TIMEOUT_S) == 1

    def end(self) -> None:
        """Whatever its state."""
        if self.server is not None and self.server.process.poll() is None:
            self.server.process.terminate()
            self.server.process.wait(_END_TIMEOUT_S)


@contextmanager
def two_replicas(model_repository: Path, directory: Path, options: Sequence[str] = ()) -> Iterator[list[Replica]]:
    """Both serve, with more options. Leaving the block ends them."""
    replicas = [
        Replica(name, model_repository, directory / name, free_ports(3), (*OPTIONS, *options))
        for name in ("replica1", "replica2")
    ]
    try:
        for server in [replica.start() for replica in replicas]:
            wait_until_serving(server)
        yield replicas
    finally:
        for replica in replicas:
            replica.end()


def wait_until_up(balancer: Balancer, timeout_s: float = 30) -> None:
    """Until the balancer sends requests to all replicas."""
    give_up = time.monotonic() + timeout_s
    while set(balancer.states().values()) != {"UP"}:
        assert time.monotonic() < give_up, f"HAProxy sees {balancer.states()}"
        time.sleep(0.1)
