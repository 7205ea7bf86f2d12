"""The Docker daemon of a rehearsal: the one that answers already, or one of its own that ends with the rehearsal."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

IMAGES = Path(__file__).parent / "images"
"""The images of the rehearsal, and the stub that makes a daemon accept a reservation of GPUs."""
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 60.0


class NoDaemon(Exception):
    """No daemon answers and none can be started; the message says why."""


@contextmanager
def docker_daemon(data_root: Path) -> Iterator[dict[str, str]]:
    """The variables with which `docker` reaches a daemon. Images of a daemon started here stay in `data_root`.

    Raises NoDaemon.
    """
    require_compose()
    if _answers({}):
        yield {}
        return
    require_dockerd()
    # Paths of sockets have at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as run_dir:
        reached_at = {"DOCKER_HOST": f"unix://{run_dir}/docker.sock"}
        with _started(Path(run_dir), data_root, reached_at):
            yield reached_at


def require_compose() -> None:
    if shutil.which("docker") is None:
        raise NoDaemon("there is no docker")
    if _run(["docker", "compose", "version"], {}).returncode:
        raise NoDaemon("docker has no compose plugin")


def require_dockerd() -> None:
    if shutil.which("dockerd") is None:
        raise NoDaemon("no Docker daemon answers, and there is no dockerd to start")
    if os.geteuid() != 0:
        raise NoDaemon("no Docker daemon answers, and only root can start one")


@contextmanager
def _started(run_dir: Path, data_root: Path, reached_at: Mapping[str, str]) -> Iterator[None]:
    """A daemon that finds the stub nvidia-container-runtime-hook, unless NVIDIA's own is installed."""
    data_root.mkdir(parents=True, exist_ok=True)
    log = data_root.with_name("dockerd.log")
    command = ["dockerd", "--host", reached_at["DOCKER_HOST"], "--data-root", str(data_root)]
    command += ["--exec-root", str(run_dir / "exec"), "--pidfile", str(run_dir / "pid")]
    environment = {**os.environ, "PATH": os.pathsep.join([os.environ["PATH"], str(IMAGES / "hook")])}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        give_up = time.monotonic() + _START_TIMEOUT_S
        while not _answers(reached_at):
            if process.poll() is not None or time.monotonic() > give_up:
                raise NoDaemon(f"dockerd does not start: {_last_line(log)}")
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(reached_at: Mapping[str, str]) -> bool:
    return _run(["docker", "info"], reached_at).returncode == 0


def _run(command: list[str], variables: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return lines[-1] if lines else "no output"
