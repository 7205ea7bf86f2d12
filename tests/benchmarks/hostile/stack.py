"""The real stack: `python -m frontend.local` with the CPU engine, two API keys, and its processes' memory."""

import os
import re
import select
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

from tests.e2e.conftest import free_ports

from .attack import ATTACKER_KEY, MODEL, NEIGHBOUR_KEY, Target, head

CACHE_BYTES = re.compile(r'("kv_cache_bytes", value: \{ string_value: )"(\d+)"')
_START_TIMEOUT_S = 180.0
_MIB = 2**20
_PIECE = 16384


@dataclass(frozen=True)
class Memory:
    """Resident MiB of the frontend, its compile workers, Triton and the engine's process."""

    frontend: float
    workers: float
    triton: float
    engine: float

    def __str__(self) -> str:
        """For example `frontend 190 MiB, workers 60 MiB`."""
        parts = {each.name: getattr(self, each.name) for each in fields(self)}
        return ", ".join(f"{name} {mib:.0f} MiB" for name, mib in parts.items() if mib)


@dataclass(frozen=True)
class Stack:
    """The running processes."""

    local: "subprocess.Popen[bytes]"
    frontend: psutil.Process
    triton: psutil.Process
    target: Target
    log: Path

    def alive(self) -> bool:
        """Whether nothing has ended."""
        return self.local.poll() is None and self.frontend.is_running() and bool(_children(self.triton))

    def memory(self) -> Memory:
        """Now. Of a process that has ended: 0."""
        return Memory(
            frontend=_mib(self.frontend),
            workers=sum(_mib(child) for child in _children(self.frontend)),
            triton=_mib(self.triton),
            engine=sum(_mib(child) for child in _children(self.triton)),
        )


def _mib(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss) / _MIB
    except psutil.NoSuchProcess:
        return 0.0


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


@contextmanager
def running(engine: Path, directory: Path, *options: str, kv_cache_bytes: int | None = None) -> Iterator[Stack]:
    """A server of this checkout with the engine at `engine`; `directory` gets its repository and its logs.

    Without `kv_cache_bytes` the KV cache is the product's.
    """
    repository = _repository(engine, directory, kv_cache_bytes)
    port, triton_port, metrics_port = free_ports(3)
    command = [sys.executable, "-m", "frontend.local", "--model-repository", str(repository), "--port", str(port)]
    command += ["--triton-port", str(triton_port), "--metrics-port", str(metrics_port)]
    command += ["--runtime-dir", str(directory / "run"), "--served-model-name", MODEL, *options]
    log = directory / "output.log"
    environment = {**os.environ, "FRONTEND_API_KEYS": f"{ATTACKER_KEY},{NEIGHBOUR_KEY}"}
    with log.open("ab") as output:
        local = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        _await_health(local, port, log)
        children = psutil.Process(local.pid).children()
        triton = next(child for child in children if "tritonserver" in child.name())
        frontend = next(child for child in children if "frontend" in child.cmdline())
        yield Stack(local, frontend, triton, Target(port, triton_port, max_body_bytes(port)), log)
    finally:
        local.terminate()
        try:
            local.wait(60)
        except subprocess.TimeoutExpired:
            local.kill()
            local.wait()


def _repository(engine: Path, directory: Path, kv_cache_bytes: int | None) -> Path:
    """A model repository like the one of this checkout, with the engine linked."""
    shipped = Path(__file__).parents[3] / "model_repository" / "openvino"
    repository = directory / "model_repository"
    shutil.rmtree(repository, ignore_errors=True)
    ignored = shutil.ignore_patterns("engine", "engines", ".engine.*", "__pycache__")
    shutil.copytree(shipped, repository / "openvino", ignore=ignored)
    (repository / "openvino" / "1" / "engine").symlink_to(engine.resolve())
    if kv_cache_bytes is not None:
        config = repository / "openvino" / "config.pbtxt"
        changed, count = CACHE_BYTES.subn(rf'\1"{kv_cache_bytes}"', config.read_text())
        assert count == 1, "config.pbtxt no longer has kv_cache_bytes"
        config.write_text(changed)
    return repository


def _await_health(local: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    give_up = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < give_up and local.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    local.kill()
    raise SystemExit(f"the server did not start:\n{log.read_text()[-3000:]}")


def max_body_bytes(port: int) -> int:
    """The server's limit, from the message with which it refuses a larger body."""
    with socket.create_connection(("127.0.0.1", port), _START_TIMEOUT_S) as connection:
        connection.sendall(head("/tokenize", 64 << 20))
        while not select.select([connection], [], [], 0.005)[0]:
            connection.sendall(b" " * _PIECE)
        answer = b""
        with suppress(ConnectionError):
            while piece := connection.recv(_PIECE):
                answer += piece
    found = re.search(rb"larger than (\d+) bytes", answer)
    if found is None:
        raise SystemExit("a body that is too large was not answered with the limit")
    return int(found[1])
