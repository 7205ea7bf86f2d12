"""The frontend in a process of its own, as `python -m frontend` starts it, in front of a fake Triton in another one."""

import logging
import multiprocessing
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from aiohttp import web

from tests.e2e.conftest import free_ports
from tests.frontend.engine_files import write_manifest
from tests.frontend.fake_triton import FakeTriton, Script
from tests.mixtral_tokenizer import write_mixtral_tokenizer

_START_TIMEOUT_S = 60.0


@contextmanager
def running(
    directory: Path, script: Callable[[dict[str, Any]], Script], *options: str, max_batch_size: int = 32
) -> Iterator[tuple[psutil.Process, int]]:
    """The frontend's process and its port. `directory` gets the tokenizer's files and frontend.log.

    `script` is a function of a module: the fake Triton's process imports it.
    """
    port, triton_port = free_ports(2)
    write_mixtral_tokenizer(directory)
    write_manifest(directory, "m")
    command = [sys.executable, "-m", "frontend", "--engine-dir", str(directory), "--port", str(port)]
    command += ["--triton-url", f"http://127.0.0.1:{triton_port}", "--served-model-name", "m", *options]
    triton = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(triton_port, script, max_batch_size), daemon=True
    )
    triton.start()
    with (directory / "frontend.log").open("wb") as log:
        frontend = subprocess.Popen(command, stderr=log)
    try:
        _await_health(frontend, port)
        yield psutil.Process(frontend.pid), port
    finally:
        frontend.terminate()
        frontend.wait()
        triton.terminate()
        triton.join()


def _serve(port: int, script: Callable[[dict[str, Any]], Script], max_batch_size: int) -> None:
    fake = FakeTriton(max_batch_size=max_batch_size)

    def steps(tensors: dict[str, Any]) -> Any:
        fake.requests.clear()
        fake.headers.clear()
        return script(tensors)

    fake.script = steps
    logging.getLogger("aiohttp.server").disabled = True  # it logs an error for each client that disconnects
    web.run_app(fake.application(), host="127.0.0.1", port=port, print=None, access_log=None)


def _await_health(frontend: "subprocess.Popen[bytes]", port: int) -> None:
    give_up = time.monotonic() + _START_TIMEOUT_S
    while frontend.poll() is None and time.monotonic() < give_up:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError("the frontend did not start")
