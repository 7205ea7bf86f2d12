"""`python -m frontend.local` reports in one line why it cannot start, and leaves no process behind however it ends.

All tests use the same ports and directory: each start also shows that the test before freed them.
"""

import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from frontend.local.runtime_dir import RuntimeDir
from frontend.server.drain import ONE_SIGNAL_S
from tests.e2e.conftest import MAX_BATCH_SIZE, SEED_MODEL, Server, free_ports, running, start_local, wait_for

NUM_STREAMS = 16
NOTICED_WITHIN_S = 2.0


@dataclass(frozen=True)
class Launcher:
    """Starts the servers of this module, one after the other, in the same directory and on the same ports."""

    model_repository: Path
    runtime_dir: Path
    ports: Sequence[int]

    @contextmanager
    def running(self, *options: str) -> Iterator[Server]:
        with running(self.model_repository, self.runtime_dir, *options, ports=self.ports) as server:
            yield server

    def refusal(self, *options: str) -> str:
        """The output of a start that fails at once with status 1."""
        server = start_local(self.model_repository, self.runtime_dir, *options, ports=self.ports)
        assert server.process.wait(60) == 1
        return server.output()


@pytest.fixture(scope="module")
def launcher(model_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Launcher:
    return Launcher(model_repository, tmp_path_factory.mktemp("local"), free_ports(3))


class ProcessTree:
    """The processes of one server, as found when this is created."""

    def __init__(self, server: Server) -> None:
        supervisor = psutil.Process(server.process.pid)
        children = {
            "triton" if "tritonserver" in child.name() else "frontend": child for child in supervisor.children()
        }
        (backend,) = children["triton"].children()
        self._members = {"supervisor": supervisor, "backend": backend, **children}

    def __getitem__(self, name: str) -> psutil.Process:
        return self._members[name]

    def kill(self, name: str) -> None:
        self._members[name].kill()

    def freeze(self, name: str) -> None:
        self._members[name].suspend()

    def alive(self) -> list[str]:
        """The names of those that run. Zombies do not count."""
        return [name for name, member in self._members.items() if _is_alive(member)]

    def expect_all_ended(self, within_s: float) -> None:
        wait_for(lambda: self.alive() == [], "every process to end", within_s)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass
class Listener:
    """A client that reads a stream until it ends or breaks off."""

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

    def noticed(self) -> bool:
        """Whether the client can tell that its answer is incomplete: by status, error event, or a broken connection."""
        return self.status == 503 or '"error"' in self.received or self.received.endswith("(broken)")


@contextmanager
def listeners(server: Server, count: int, **fields: Any) -> Iterator[list[Listener]]:
    """Clients that each read a stream that fills the context; the batch is full. Waits at the end for all streams."""
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


def ask(server: Server) -> httpx.Response:
    body = {"model": SEED_MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    return httpx.post(f"{server.api}/v1/chat/completions", json=body, timeout=30)


def health(server: Server) -> int:
    """The status of /health; 0 if the connection fails."""
    try:
        return httpx.get(f"{server.api}/health", timeout=5).status_code
    except httpx.TransportError:
        return 0


@pytest.mark.parametrize(
    "option", ["--port", "--triton-port", "--metrics-port"], ids=lambda option: option.removeprefix("--")
)
def test_a_busy_port_is_reported_in_one_line_with_its_option(launcher: Launcher, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        output = launcher.refusal(option, str(port))
    assert (
        output == f"local: cannot listen on 127.0.0.1:{port} (Address already in use); choose another with {option}\n"
    )


@pytest.mark.parametrize("model", ["openvino", "tensorrt_llm"])
def test_a_missing_engine_is_reported_in_one_line_with_the_command_that_builds_it(
    launcher: Launcher, tmp_path: Path, model: str
) -> None:
    assert launcher.refusal("--model-repository", str(tmp_path), "--model", model) == (
        f"local: {tmp_path}/{model}/1/engine holds no engine; build it with:"
        f" python -m build_engine build --target {model} --model-repository {tmp_path} CHECKPOINT\n"
    )


def test_an_invalid_port_is_reported_in_one_line(launcher: Launcher) -> None:
    output = launcher.refusal("--port", "70000")
    assert (
        output
        == "local: cannot listen on 127.0.0.1:70000 (bind(): port must be 0-65535.); choose another with --port\n"
    )


def test_an_invalid_frontend_option_is_refused_before_the_model_is_loaded(launcher: Launcher, tmp_path: Path) -> None:
    server = start_local(launcher.model_repository, tmp_path, "--max-body-bytes", "many", ports=launcher.ports)
    assert server.process.wait(60) == 2
    assert server.output().endswith("error: argument --max-body-bytes: invalid int value: 'many'\n")
    assert not (tmp_path / "triton.log").exists()


def test_a_second_ctrl_c_cuts_off_running_answers(launcher: Launcher) -> None:
    with launcher.running() as server:
        processes = ProcessTree(server)
        with listeners(server, NUM_STREAMS) as clients:
            server.process.send_signal(signal.SIGINT)
            wait_for(lambda: health(server) in (503, 0), "the frontend to take no more requests")
            time.sleep(2 * ONE_SIGNAL_S)  # sooner it would be the same Ctrl-C
            server.process.send_signal(signal.SIGINT)
            assert server.process.wait(60) == 0
        processes.expect_all_ended(within_s=60)
    cut_off = [listener for listener in clients if "[DONE]" not in listener.received]
    assert cut_off
    assert all(listener.noticed() for listener in cut_off)


@pytest.mark.parametrize(
    ("victim", "status"), [("frontend", 1), ("triton", 1), ("backend", 1), ("supervisor", -signal.SIGKILL)]
)
def test_killing_one_process_ends_all_and_every_client_notices_within_2_s(
    launcher: Launcher, victim: str, status: int
) -> None:
    with launcher.running() as server:
        processes = ProcessTree(server)
        with listeners(server, NUM_STREAMS) as clients:
            killed = time.monotonic()
            processes.kill(victim)
            if victim in ("triton", "backend"):
                wait_for(lambda: health(server) == 503, "/health to answer 503", NOTICED_WITHIN_S)
        assert all(listener.noticed() for listener in clients)
        assert max(listener.ended for listener in clients) - killed < NOTICED_WITHIN_S
        assert server.process.wait(60) == status
        processes.expect_all_ended(within_s=60)
    if victim in ("frontend", "triton"):
        assert f"local: {victim} ended with status -9" in server.output()
    if victim == "backend":
        assert "local: triton's backend process ended" in server.output()


def test_restart_brings_back_what_ends_while_clients_are_told_to_retry(launcher: Launcher) -> None:
    with launcher.running("--restart") as server:
        for victim, ended in (("backend", "triton"), ("frontend", "frontend")):
            processes = ProcessTree(server)
            processes.kill(victim)
            if victim == "backend":
                wait_for(lambda: health(server) == 503, "/health to answer 503", NOTICED_WITHIN_S)
                refused = ask(server)
                assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
                assert refused.json()["error"]["code"] == "engine_unavailable"
            again = f"local: {ended} serves again after "
            wait_for(lambda again=again: again in server.output(), "it to be started again", 60)  # type: ignore[misc]
            assert ask(server).status_code == 200
            assert ("frontend" in processes.alive()) == (victim == "backend")
            assert ("triton" in processes.alive()) == (victim == "frontend")
        processes = ProcessTree(server)
    assert server.process.returncode == 0
    assert processes.alive() == []


def test_a_frozen_engine_is_503_and_a_second_ctrl_c_ends_it(launcher: Launcher) -> None:
    with launcher.running() as server:
        processes = ProcessTree(server)
        processes.freeze("backend")
        refused = ask(server)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
        assert refused.json()["error"]["code"] == "engine_unavailable"
        assert health(server) == 503
        server.process.send_signal(signal.SIGINT)
        wait_for(lambda: health(server) == 0, "the frontend to take no more requests")
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 0
        processes.expect_all_ended(within_s=60)


def test_secrets_stay_with_the_frontend_and_what_triton_shares_is_private(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRONTEND_API_KEYS", "secret-of-clients")
    with launcher.running() as server:
        processes = ProcessTree(server)
        (key,) = server.triton_headers.values()
        for name in ("supervisor", "triton", "backend", "frontend"):
            assert key not in " ".join(processes[name].cmdline())
        for name in ("triton", "backend"):
            assert "secret-of-clients" not in processes[name].environ().values()
        regions = [Path(region.path) for region in processes["backend"].memory_maps() if "/dev/shm/" in region.path]
        assert regions
        assert {path.stat().st_mode & 0o777 for path in regions} == {0o600}
        assert (launcher.runtime_dir / "triton.log").stat().st_mode & 0o777 == 0o600
        assert key not in (launcher.runtime_dir / "triton.log").read_text()


def test_a_directory_of_another_instance_is_refused(launcher: Launcher) -> None:
    with closing(RuntimeDir(launcher.runtime_dir)):
        output = launcher.refusal()
    expected = f"local: {launcher.runtime_dir} is used by another instance; choose another with --runtime-dir\n"
    assert output == expected


def test_ctrl_c_lets_answers_finish_and_ends_all_processes_with_status_0(launcher: Launcher) -> None:
    with launcher.running("--drain-seconds", "60") as server:
        processes = ProcessTree(server)
        with listeners(server, 1, max_tokens=300) as (listener,):
            server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 0
        assert processes.alive() == []
    assert listener.received.endswith("data: [DONE]\n\n")
    assert "Traceback" not in server.output()


def test_after_sigterm_requests_are_served_until_the_drain_is_over_and_answers_finish(launcher: Launcher) -> None:
    with launcher.running("--drain-seconds", "6") as server:
        processes = ProcessTree(server)
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGTERM)  # as `timeout` does: to the process and to its group
        sent = time.monotonic()
        wait_for(lambda: health(server) == 503, "readiness to end", 1)
        assert ask(server).status_code == 200
        with listeners(server, 1, max_tokens=300) as (listener,):
            pass
        assert server.process.wait(60) == 0
        assert time.monotonic() - sent > 6
        assert processes.alive() == []
    assert listener.received.endswith("data: [DONE]\n\n")
    assert "Traceback" not in server.output()
