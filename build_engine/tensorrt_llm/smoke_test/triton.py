"""Start Triton on a staged engine, on loopback, and end it."""

import http.client
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from build_engine.errors import EngineError
from build_engine.model_config import ServingConfig
from build_engine.signals import uninterrupted
from build_engine.tensorrt_llm.commands import Toolchain, serve_command
from build_engine.tensorrt_llm.subprocess_log import end_group, failed, start_group
from build_engine.tensorrt_llm.tokenizer_info import XGRAMMAR_TOKENIZER_INFO

from .client import MODEL, Client, NoAnswer

_STEP = "smoke"
"""In front of messages about the process."""
_START_TIMEOUT_S = 1800.0
"""Reading an engine of 25 GB from a slow disk takes minutes."""
_DEATH_TIMEOUT_S = 5.0
"""How long a crash may take to end a process whose connections are broken already."""
_POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What to start: an engine directory with tokenizer info, and the config to serve it with.

    The repository and the log go to `directory`. Triton inherits the descriptors `keep_open`.
    """

    engine_dir: Path
    config: ServingConfig
    tp_size: int
    directory: Path
    keep_open: tuple[int, ...] = ()


@contextmanager
def serving(settings: Serving, tools: Toolchain) -> Iterator[Client]:
    """Triton, ready for requests, until the end of the block.

    Raises HostError when it cannot be started, ToolFailed when it ends, also in the block, and EngineError when it does
    not load the engine in time.
    """
    http_port, metrics_port = free_ports()
    command = serve_command(tools, write_repository(settings), settings.tp_size, http_port, metrics_port)
    log = settings.directory / "triton.log"
    client = Client(http_port=http_port, metrics_port=metrics_port)
    with log.open("wb") as output:
        process = start_group(f"{_STEP}: {command[0]}", command, output=output, keep_open=settings.keep_open)
    try:
        wait_until_ready(process, client, log, step=_STEP, timeout_s=_START_TIMEOUT_S)
        yield client
    except NoAnswer:
        _raise_if_ended(process, log, _STEP, _DEATH_TIMEOUT_S)
        raise
    finally:
        with uninterrupted():
            end_group(process)


def write_repository(settings: Serving) -> Path:
    """A model repository with the same config but for the engine's path."""
    engine_dir = settings.engine_dir.absolute()
    paths = {
        "gpt_model_path": str(engine_dir),
        "tokenizer_dir": str(engine_dir),
        "xgrammar_tokenizer_info_path": str(engine_dir / XGRAMMAR_TOKENIZER_INFO),
    }
    model = settings.directory / "repository" / MODEL
    (model / "1").mkdir(parents=True, exist_ok=True)
    (model / "config.pbtxt").write_text(settings.config.text_with(paths))
    return model.parent


def wait_until_ready(
    process: "subprocess.Popen[bytes]", client: Client, log: Path, *, step: str, timeout_s: float
) -> None:
    """Return when Triton has the model ready.

    Raises ToolFailed when the process ends, with `step` in front of its message, EngineError after `timeout_s`.
    """
    give_up = time.monotonic() + timeout_s
    while time.monotonic() < give_up:
        _raise_if_ended(process, log, step)
        try:
            if client.is_ready():
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(_POLL_S)
    raise EngineError(f"Triton did not load the engine within {timeout_s:.0f} s; its log is {log}")


def _raise_if_ended(process: "subprocess.Popen[bytes]", log: Path, step: str, timeout_s: float = 0.0) -> None:
    try:
        status = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return
    raise failed(step, "tritonserver", status, log)


def free_ports() -> tuple[int, int]:
    """Two ports of loopback that nothing listens on: for HTTP and for metrics."""
    with socket.socket() as http_socket, socket.socket() as metrics_socket:
        for probe in (http_socket, metrics_socket):
            probe.bind(("127.0.0.1", 0))
        return http_socket.getsockname()[1], metrics_socket.getsockname()[1]
