"""A real Triton with the CPU engine of a tiny Mixtral, and the frontend in front of it, started as by `make run`."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.log_privacy import EXCHANGED
from tests.tiny_repository import MAX_BATCH_SIZE as MAX_BATCH_SIZE
from tests.tiny_repository import MAX_SEQ_LEN as MAX_SEQ_LEN
from tests.tiny_repository import write_tiny_repository

ROOT = Path(__file__).parents[2]
SEED_MODEL = "/opt/models/casperhansen/mixtral-instruct-awq"
PROMPT = [1, 733, 16289, 28793, 1824, 349, 264, 2134, 28804, 733, 28748, 16289, 28793]
_ATTEMPTS = 10


@dataclass(frozen=True)
class Server:
    """A running `python -m frontend.local`, its log and the URLs of its parts."""

    process: "subprocess.Popen[bytes]"
    log: Path
    api: str
    triton: str
    metrics: str

    @property
    def triton_headers(self) -> dict[str, str]:
        """What Triton requires of a request, from the file for operators."""
        name, _, value = (self.log.parent / "triton.header").read_text().strip().partition(": ")
        return {name: value}

    def gauge(self, family: str, kind: str) -> float:
        """The value of a gauge in Triton's /metrics, selected by the value of one of its labels."""
        with urllib.request.urlopen(f"{self.metrics}/metrics") as response:
            text = response.read().decode()
        found = re.search(rf'^{family}{{[^}}]*"{kind}"[^}}]*}} (\S+)$', text, re.MULTILINE)
        assert found, f"no {family} of {kind} in Triton's metrics"
        return float(found[1])

    def active(self) -> float:
        """Requests in the running batch."""
        return self.gauge("nv_trt_llm_request_metrics", "active")

    def request_log(self) -> str:
        """The output without what `make run` itself says: how to ask "What is a house?" among others."""
        return "\n".join(re.findall(r"^(?:\d{4}-\d\d-\d\d |\{).*", self.output(), re.MULTILINE))

    def output(self) -> str:
        """The output of supervisor and frontend so far."""
        return self.log.read_text()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for probe in sockets:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in sockets]
    for probe in sockets:
        probe.close()
    return ports


def start_local(model_repository: Path, runtime_dir: Path, *options: str, ports: Sequence[int] | None = None) -> Server:
    port, triton_port, metrics_port = ports or free_ports(3)
    command = [sys.executable, "-m", "frontend.local", "--model-repository", str(model_repository)]
    command += ["--port", str(port), "--triton-port", str(triton_port), "--metrics-port", str(metrics_port)]
    command += ["--runtime-dir", str(runtime_dir), "--served-model-name", SEED_MODEL, *options]
    log = runtime_dir / "output.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    urls = [f"http://127.0.0.1:{number}" for number in (port, triton_port, metrics_port)]
    return Server(process, log, *urls)


def wait_until_serving(server: Server, timeout_s: float = 120) -> None:
    wait_for(lambda: _healthy(server), "the server to answer /health with 200", timeout_s)


def _healthy(server: Server) -> bool:
    if server.process.poll() is not None:
        pytest.fail(f"the server ended while starting:\n{server.output()}")
    try:
        return bool(urllib.request.urlopen(f"{server.api}/health", timeout=2).status == 200)
    except OSError:
        return False


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    """Poll until `condition` holds. After `timeout_s` the test fails and names `what`."""
    give_up = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > give_up:
            pytest.fail(f"waited {timeout_s} s for {what}")
        time.sleep(0.02)


def at_least_once(seen: Callable[[], bool]) -> bool:
    """For what a wrong server never does, but a test on a busy machine may be too slow to see."""
    return any(seen() for _ in range(_ATTEMPTS))


def frees_its_slot(server: Server, client: Callable[[], AbstractContextManager[object]], model: str) -> bool:
    """Whether a request of `client`, which then disconnects, leaves the engine while an older one still runs.

    The older one is sent to Triton and fills the context. By the engine's clock, which is this machine's, it ends after
    the other has left; on a wrong server the older one ends first.
    """
    wait_for(lambda: server.active() == 0, "an idle server")
    older = events(server, model, request_output_len=480, end_id=-1, return_perf_metrics=True)
    next(older)
    with client():
        counted = any(server.active() == 2 for _ in range(100))
    left = any(server.active() == 1 for _ in range(1000))
    left_at_ns = time.monotonic_ns()
    *_, last = older
    return counted and left and left_at_ns < last["last_token_time_ns"]


def events(server: Server, model: str = "openvino", **inputs: Any) -> Generator[dict[str, Any], None, None]:
    """The responses to one request, as they arrive. Tensors of one element, scalars in Triton's JSON, become lists."""
    body = {"input_ids": PROMPT, "request_output_len": 16, "streaming": True, **inputs}
    body.setdefault("input_lengths", len(body["input_ids"]))
    url = f"{server.triton}/v2/models/{model}/generate_stream"
    with httpx.stream("POST", url, json=body, headers=server.triton_headers, timeout=60) as response:
        for line in response.iter_lines():
            if line.startswith("data:"):
                event = json.loads(line[5:])
                for name in ("output_ids", "output_log_probs"):
                    if name in event and not isinstance(event[name], list):
                        event[name] = [event[name]]
                yield event


@contextmanager
def running(
    model_repository: Path, runtime_dir: Path, *options: str, ports: Sequence[int] | None = None
) -> Iterator[Server]:
    """A server for the block. At its end, its output must show no text that was exchanged meanwhile, and no key."""
    since = len(EXCHANGED)
    server = start_local(model_repository, runtime_dir, *options, ports=ports)
    try:
        wait_until_serving(server)
        yield server
    finally:
        server.process.send_signal(signal.SIGINT)
        try:
            server.process.wait(40)
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.wait()
    assert not EXCHANGED.shown_in(server.request_log(), since)


@pytest.fixture(scope="session")
def model_repository(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """The product's model repository with an engine of the tiny Mixtral, a short context, and float32 arithmetic."""
    return write_tiny_repository(tmp_path_factory.mktemp("repository") / "model_repository", tiny_checkpoint)


@pytest.fixture(scope="session")
def server(model_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server, shared by all tests that do not stop it."""
    with running(model_repository, tmp_path_factory.mktemp("run")) as started:
        yield started
