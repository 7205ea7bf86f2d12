"""`python -m frontend.local`: one line when it cannot start, and nothing left behind however it ends.

Every test starts on the same ports and in the same directory, so each start is the one after what the last test did.
"""

import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.conftest import MAX_BATCH_SIZE, SEED_MODEL, Server, free_ports, running, start_local, wait_for

NUM_STREAMS = 16
NOTICED_WITHIN_S = 2.0


@dataclass(frozen=True)
class Place:
    """Where the servers of this module run, one after the other."""

    model_repository: Path
    runtime_dir: Path
    ports: Sequence[int]

    @contextmanager
    def running(self) -> Iterator[Server]:
        with running(self.model_repository, self.runtime_dir, ports=self.ports) as server:
            yield server

    def refusal(self, *options: str) -> str:
        """What a start says that ends at once with status 1."""
        server = start_local(self.model_repository, self.runtime_dir, *options, ports=self.ports)
        assert server.process.wait(10) == 1
        return server.output()


@pytest.fixture(scope="module")
def place(model_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(model_repository, tmp_path_factory.mktemp("local"), free_ports(3))


class Family:
    """The processes of one server, as they were when it was made."""

    def __init__(self, server: Server) -> None:
        supervisor = psutil.Process(server.process.pid)
        children = {
            "triton" if "tritonserver" in child.name() else "frontend": child for child in supervisor.children()
        }
        (backend,) = children["triton"].children()
        self._members = {"supervisor": supervisor, "backend": backend, **children}

    def kill(self, name: str) -> None:
        self._members[name].kill()

    def alive(self) -> list[str]:
        """Without those that only wait to be waited for."""
        return [name for name, member in self._members.items() if _is_alive(member)]

    def expect_the_end(self, within_s: float) -> None:
        wait_for(lambda: self.alive() == [], "every process to end", within_s)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass
class Listener:
    """A client that reads a stream to its end, whatever that is."""

    received: str = ""
    status: int = 0
    ended: float = 0.0
    started: threading.Event = field(default_factory=threading.Event)

    def listen(self, client: httpx.Client, fields: dict[str, Any]) -> None:
        body = {"model": SEED_MODEL, "messages": [{"role": "user", "content": "Hi"}], "stream": True, **fields}
        try:
            with client.stream("POST", "/v1/chat/completions", json=body) as response:
                self.status = response.status_code
                for text in response.iter_text():
                    self.received += text
                    self.started.set()
        except httpx.TransportError:
            self.received += "(broken)"
        self.ended = time.monotonic()

    def was_told(self) -> bool:
        """Of the failure: by a status, by an event, or by the end of the connection."""
        return self.status == 503 or '"error"' in self.received or self.received.endswith("(broken)")


@contextmanager
def listeners(server: Server, count: int, **fields: Any) -> Iterator[list[Listener]]:
    """Clients of streams that fill the context, all there and as many as possible in the batch. Leaves when all end."""
    clients = [Listener() for _ in range(count)]
    fields = {"ignore_eos": True, **fields}
    with httpx.Client(base_url=server.api, timeout=30, limits=httpx.Limits(max_connections=count)) as client:
        threads = [threading.Thread(target=listener.listen, args=(client, fields)) for listener in clients]
        for thread in threads:
            thread.start()
        wait_for(lambda: server.active() == min(count, MAX_BATCH_SIZE), "the batch to be full")
        yield clients
        for thread in threads:
            thread.join()


def health(server: Server) -> int:
    """0 when nobody listens."""
    try:
        return httpx.get(f"{server.api}/health", timeout=5).status_code
    except httpx.TransportError:
        return 0


@pytest.mark.parametrize(
    "option", ["--port", "--triton-port", "--metrics-port"], ids=lambda option: option.removeprefix("--")
)
def test_a_busy_port_is_one_line_that_names_it_and_its_option(place: Place, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        said = place.refusal(option, str(port))
    assert said == f"local: cannot listen on 127.0.0.1:{port} (Address already in use); choose another with {option}\n"


@pytest.mark.parametrize("model", ["openvino", "tensorrt_llm"])
def test_no_engine_is_one_line_that_says_how_to_build_it(place: Place, tmp_path: Path, model: str) -> None:
    assert place.refusal("--model-repository", str(tmp_path), "--model", model) == (
        f"local: {tmp_path}/{model}/1/engine holds no engine; build it with:"
        f" python -m build_engine build --target {model} --model-repository {tmp_path} CHECKPOINT\n"
    )


def test_a_port_that_cannot_be_is_one_line_too(place: Place) -> None:
    said = place.refusal("--port", "70000")
    assert (
        said == "local: cannot listen on 127.0.0.1:70000 (bind(): port must be 0-65535.); choose another with --port\n"
    )


def test_a_wrong_option_for_the_frontend_is_refused_before_a_model_is_loaded(place: Place, tmp_path: Path) -> None:
    server = start_local(place.model_repository, tmp_path, "--max-body-bytes", "many", ports=place.ports)
    assert server.process.wait(10) == 2
    assert server.output().endswith("error: argument --max-body-bytes: invalid int value: 'many'\n")
    assert not (tmp_path / "triton.log").exists()


def test_a_second_ctrl_c_waits_for_nobody(place: Place) -> None:
    with place.running() as server:
        family = Family(server)
        with listeners(server, NUM_STREAMS) as clients:
            server.process.send_signal(signal.SIGINT)
            wait_for(lambda: health(server) == 0, "the frontend to take no more requests")
            server.process.send_signal(signal.SIGINT)
            assert server.process.wait(2) == 0
        family.expect_the_end(within_s=20)
    assert all(listener.was_told() for listener in clients)


@pytest.mark.parametrize(
    ("victim", "status"), [("frontend", 1), ("triton", 1), ("backend", 1), ("supervisor", -signal.SIGKILL)]
)
def test_any_process_killed_ends_all_and_every_client_is_told_at_once(place: Place, victim: str, status: int) -> None:
    with place.running() as server:
        family = Family(server)
        with listeners(server, NUM_STREAMS) as clients:
            killed = time.monotonic()
            family.kill(victim)
            if victim in ("triton", "backend"):
                wait_for(lambda: health(server) == 503, "/health to say so", NOTICED_WITHIN_S)
        assert all(listener.was_told() for listener in clients)
        assert max(listener.ended for listener in clients) - killed < NOTICED_WITHIN_S
        assert server.process.wait(10) == status
        family.expect_the_end(within_s=20)
    if victim in ("frontend", "triton"):
        assert f"local: {victim} ended with status -9" in server.output()
    if victim == "backend":
        assert "local: triton's backend process ended" in server.output()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=lambda signum: signum.name)
def test_a_signal_lets_answers_finish_and_ends_everything_with_status_0(place: Place, signum: signal.Signals) -> None:
    with place.running() as server:
        family = Family(server)
        with listeners(server, 1, max_tokens=300) as (listener,):
            server.process.send_signal(signum)
        assert server.process.wait(10) == 0
        assert family.alive() == []
    assert listener.received.endswith("data: [DONE]\n\n")
    assert "Traceback" not in server.output()
