"""The servers that are compared: how each is started, and what its processes take."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from build_engine.checkpoint import INDEX, Checkpoint, open_checkpoint
from tests.benchmarks.frontend_cpu import cpu_s

from .environments import ROOT, llama_server, vllm_python
from .models import write_gguf, write_plain_checkpoint

MAX_STREAMS, CONTEXT = 32, 2048
CHECKPOINT = Path(".cache/demo-checkpoint")
_CORES = os.cpu_count() or 1
_START_S = 600


@dataclass(frozen=True, slots=True)
class Server:
    """`api` finds its process that speaks HTTP by what its command line contains; None: one process does it all."""

    name: str
    command: Sequence[str]
    port: int
    api: str | None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers. `model`: as it names it. `start_s`: from its start until it answered."""

    server: Server
    process: psutil.Process
    model: str
    start_s: float

    def cpu_s(self) -> float:
        """CPU time of all its processes until now."""
        return cpu_s(self.process)

    def api_cpu_s(self) -> float | None:
        """CPU time of the process that speaks HTTP, where it is not the one that computes."""
        if self.server.api is None:
            return None
        found = [process for process in self._processes() if self.server.api in " ".join(process.cmdline())]
        return max(sum(process.cpu_times()[:2]) for process in found)

    def memory_mb(self) -> float:
        """Memory of all its processes; what several of them share is counted in parts."""
        return sum(process.memory_full_info().pss for process in self._processes()) / 1e6

    def _processes(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


def ours(port: int) -> Server:
    """This product, as `make run` starts it. Raises SystemExit if no engine is published."""
    if not Path("model_repository/openvino/1/engine").exists():
        raise SystemExit("no CPU engine in model_repository; run: make cpu-engine")
    options = ("--port", str(port), "--runtime-dir", ".cache/bench-peers", "--disable-log-requests")
    return Server("ours", (sys.executable, "-m", "frontend.local", *options), port, "-m frontend ")


def llama_cpp(port: int) -> Server:
    """llama.cpp's server with one slot for each stream."""
    model = _convert("demo.gguf", write_gguf)
    sizes = ("--threads", str(_CORES), "--parallel", str(MAX_STREAMS), "--ctx-size", str(MAX_STREAMS * CONTEXT))
    command = (str(llama_server()), "--model", str(model), "--port", str(port), "--jinja", *sizes)
    return Server("llama.cpp", command, port, None)


def vllm(port: int) -> Server:
    """vLLM's server for CPUs in bfloat16, with its defaults but for the context."""
    model, python = _convert("demo-float16", write_plain_checkpoint), vllm_python()
    options = ("--model", str(model), "--dtype", "bfloat16", "--max-model-len", str(CONTEXT), "--port", str(port))
    environment = {"VLLM_CPU_KVCACHE_SPACE": "2", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    command = (str(python), "-m", "vllm.entrypoints.openai.api_server", *options)
    return Server("vLLM", command, port, "vllm.entrypoints.openai.api_server", environment)


SERVERS: Mapping[str, Callable[[int], Server]] = {"ours": ours, "llama.cpp": llama_cpp, "vllm": vllm}
"""Each takes its port, and installs or converts first what it needs."""


def _convert(name: str, write: Callable[[Checkpoint, Path], None]) -> Path:
    """The demo checkpoint in another format. What is there is kept until the checkpoint is made again."""
    path, partial = ROOT / name, ROOT / f"{name}.partial"
    if path.exists() and path.stat().st_mtime > (CHECKPOINT / INDEX).stat().st_mtime:
        return path
    for left in (path, partial):
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    ROOT.mkdir(parents=True, exist_ok=True)
    write(open_checkpoint(CHECKPOINT), partial)
    return partial.rename(path)


@contextmanager
def running(server: Server) -> Iterator[Running]:
    """The server from when it answers. Raises SystemExit with its log's place if it does not start."""
    log = ROOT / f"{server.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        environment, started = {**os.environ, **server.environment}, time.monotonic()
        process = subprocess.Popen(server.command, stdout=output, stderr=output, env=environment)
    try:
        while not _answers(server.port):
            if process.poll() is not None or time.monotonic() - started > _START_S:
                raise SystemExit(f"{server.name} did not start, see {log}")
            time.sleep(0.2)
        start_s = time.monotonic() - started
        yield Running(server, psutil.Process(process.pid), _model(server.port), start_s)
    finally:
        process.terminate()
        process.wait()


def _model(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models") as response:
        return str(json.load(response)["data"][0]["id"])


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False
