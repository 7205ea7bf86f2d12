"""Serve a tiny engine through the container's entry point, as the service `triton` does, but on loopback."""

import re
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from build_engine.errors import EngineError
from build_engine.signals import uninterrupted
from build_engine.tensorrt_llm.smoke_test.client import MODEL, Client
from build_engine.tensorrt_llm.smoke_test.triton import free_ports, wait_until_ready
from build_engine.tensorrt_llm.subprocess_log import end_group, start_group

ENTRYPOINT = Path("/usr/local/bin/triton-entrypoint")
"""Where the image has docker/triton-entrypoint.sh."""
EXIT_TIMEOUT_S = 30.0
"""How long the entry point lets Triton finish its answers."""
_START_TIMEOUT_S = 600.0
"""The engine has a few megabytes; what takes time is loading libraries and, with several GPUs, connecting them."""
_HTTP_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Server:
    """A Triton that serves the model, and its process: the entry point's, which becomes Triton's with one GPU."""

    client: Client
    process: "subprocess.Popen[bytes]"

    def gauge(self, metric: str, label: str) -> int | None:
        """A value of Triton's metrics by its name and the value of one of its labels; None if there is none."""
        url = f"http://127.0.0.1:{self.client.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=_HTTP_TIMEOUT_S) as response:
            text = response.read().decode()
        found = re.search(rf'^{metric}\{{[^}}]*="{label}"[^}}]*\}} ([0-9.e+]+)$', text, re.MULTILINE)
        return int(float(found[1])) if found else None

    def stop(self) -> int:
        """Send SIGTERM and wait; the exit status. Raises EngineError when it has not ended in time."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """The exit status. Raises EngineError when it has not ended in time."""
        try:
            return self.process.wait(2 * EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise EngineError(f"Triton has not ended {2 * EXIT_TIMEOUT_S:.0f} s after SIGTERM") from error


@contextmanager
def serve(entrypoint: Path, repository: Path, log: Path) -> Iterator[Server]:
    """Triton with the model of `repository`, ready for requests; ended with the block if it still runs.

    Raises HostError when it cannot be started, ToolFailed when it ends, EngineError when it is not ready in time.
    """
    http_port, metrics_port = free_ports()
    command = [
        str(entrypoint),
        *(f"--http-address=127.0.0.1 --http-port={http_port}".split()),
        *(f"--metrics-address=127.0.0.1 --metrics-port={metrics_port}".split()),
    ]
    process = _start(command, repository, log)
    server = Server(Client(http_port=http_port, metrics_port=metrics_port), process)
    try:
        wait_until_ready(process, server.client, log, step="serve", timeout_s=_START_TIMEOUT_S)
        yield server
    finally:
        with uninterrupted():
            end_group(process)


def _start(command: list[str], repository: Path, log: Path) -> "subprocess.Popen[bytes]":
    environment = {
        "MODEL": MODEL,
        "MODEL_REPOSITORY": str(repository),
        # The self check runs as the checkout's owner, who may be root.
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        return start_group(command[0], command, output=output, environment=environment)
