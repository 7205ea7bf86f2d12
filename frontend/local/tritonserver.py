"""Start Triton Inference Server on this machine, for inference only and on loopback only.

`tritonserver` on the PATH (NVIDIA's image) is used as it is; otherwise the one in the wheel nvidia-pytriton, with its
Python backend and the stub for this Python. Not here: waiting until it is ready, and stopping it.
"""

import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

from frontend.settings import ENV_PREFIX, TRITON_KEY_HEADER

from .child_process import start_child
from .libpython import LibpythonMissing, libpython_dir

_log = logging.getLogger(__name__)

_PRIVATE_UMASK = 0o077
"""What Triton and its Python backend write is for their own user."""

INFERENCE_APIS = "inference,metadata,model-config,statistics"
"""What the frontend uses; every user of this machine can connect, so these APIs ask for a key. Health checks do not."""

ADMIN_APIS = "model-repository,shared-memory,trace,logging"
"""Triton's APIs that change a running server or read its memory; closed, as the frontend does not use them."""

_SHELL_WORD = re.compile(r"[\w./+@%:,=-]+")
"""What bash takes as one word. Triton's Python backend writes paths into a line for it (stub_launcher.cc)."""

UNSENDABLE_KEY = "closed=\n"
"""The header that a request to them needs. It cannot be sent, because a header value cannot contain a newline."""


class TritonUnavailable(Exception):
    """tritonserver cannot be started on this machine; the message says what to install."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonSettings:
    """Where a server listens, on loopback, and the engine's model that it loads. Inference needs `key`, if it is set.

    `shm_prefix` begins the names of the Python backend's regions in /dev/shm.
    """

    model_repository: Path
    model: str
    http_port: int
    metrics_port: int
    runtime_dir: Path
    key: str = field(default="", repr=False)
    shm_prefix: str = "triton_python_backend_shm_region_"


def start_triton(settings: TritonSettings, log: IO[Any]) -> "subprocess.Popen[bytes]":
    """Start tritonserver with its output in `log`, without waiting until it is ready. Raises TritonUnavailable."""
    for option, path in (("--model-repository", settings.model_repository), ("--runtime-dir", settings.runtime_dir)):
        if not _SHELL_WORD.fullmatch(str(path)):
            raise TritonUnavailable(
                f"{option} is {path}; accepted: a path without spaces and without characters that a shell interprets,"
                " because Triton's Python backend hands it to one"
            )
    command, environment = triton_command(settings)
    start = partial(start_child, command, environment=environment, output=log, umask=_PRIVATE_UMASK)
    try:
        return start(secret=_key_option(settings.key) if settings.key else None)
    except (OSError, subprocess.SubprocessError) as exc:
        _log.warning("local: every user of this machine can read Triton's key, as it cannot be hidden: %s", exc)
        return start()


def _key_option(key: str) -> str:
    return f"--http-restricted-api={INFERENCE_APIS}:{TRITON_KEY_HEADER}={key}"


def triton_command(settings: TritonSettings) -> tuple[list[str], dict[str, str]]:
    """The command line and the environment of the server."""
    options: dict[str, object] = {
        "model-repository": settings.model_repository,
        "model-control-mode": "explicit",
        "http-address": "127.0.0.1",
        "http-port": settings.http_port,
        "metrics-address": "127.0.0.1",
        "metrics-port": settings.metrics_port,
        "allow-grpc": "false",
        "allow-sagemaker": "false",
        "allow-vertex-ai": "false",
        "allow-gpu-metrics": "false",
        "exit-timeout-secs": 5,
        "http-restricted-api": f"{ADMIN_APIS}:{UNSENDABLE_KEY}",
        "backend-config": f"python,shm-region-prefix-name={settings.shm_prefix}",
    }
    binary, more, environment = _installation(settings.runtime_dir)
    arguments = [f"--{name}={value}" for name, value in (options | more).items()]
    arguments += [f"--load-model={model}" for model in _models(settings)]
    with_key = [_key_option(settings.key)] if settings.key else []
    return [str(binary), "--disable-auto-complete-config", *arguments, *with_key], environment


def _models(settings: TritonSettings) -> list[str]:
    """The engine's model, and the one that computes its alternatives, if the repository has one for this engine."""
    log_probs_model = f"{settings.model}_log_probs"
    is_there = (settings.model_repository / log_probs_model).is_dir()
    return [settings.model, *([log_probs_model] if is_there else [])]


def _installation(runtime_dir: Path) -> tuple[Path, dict[str, object], dict[str, str]]:
    """The binary, its options for the directory of backends, and its environment."""
    if on_path := shutil.which("tritonserver"):
        return Path(on_path), {}, _environment_of_others()
    wheel = _wheel()
    environment = _python_environment()
    backends = _link_backends(wheel, runtime_dir / "backends")
    return wheel / "bin" / "tritonserver", {"backend-directory": backends}, environment


def _wheel() -> Path:
    """Triton's directory in nvidia-pytriton. Raises TritonUnavailable; builds for other processors have none."""
    spec = importlib.util.find_spec("pytriton")
    wheel = Path(spec.origin).parent / "tritonserver" if spec is not None and spec.origin is not None else None
    if wheel is None or not (wheel / "bin" / "tritonserver").exists():
        raise TritonUnavailable(
            "no tritonserver on the PATH, and no wheel that carries one is installed;"
            " install it with: pip install --no-deps nvidia-pytriton"
        )
    return wheel


def _link_backends(wheel: Path, backends: Path) -> Path:
    """The backend and the stub for this Python, linked into one directory, as the backend looks for the stub there.

    In the wheel they are in different directories.
    """
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = wheel / "python_backend_stubs" / python / "triton_python_backend_stub"
    if not stub.exists():
        raise TritonUnavailable(f"Triton's Python backend has no stub for Python {python}; accepted: 3.11 and 3.12")
    files = [stub, *(wheel / "backends" / "python").iterdir()]
    shutil.rmtree(backends, ignore_errors=True)
    (backends / "python").mkdir(parents=True)
    for file in files:
        (backends / "python" / file.name).symlink_to(file)
    return backends


def _python_environment() -> dict[str, str]:
    """The environment for the stub, which embeds Python: it needs this Python's library, modules and packages."""
    try:
        library = libpython_dir()
    except LibpythonMissing as exc:
        raise TritonUnavailable(str(exc)) from exc
    return {
        **_environment_of_others(),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, [str(library), os.environ.get("LD_LIBRARY_PATH")])),
        # The stub ignores PYTHONPATH, but finds a virtual environment by the first python3 on the PATH.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    }


def _environment_of_others() -> dict[str, str]:
    """Without the frontend's settings, of which some are secrets."""
    return {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
