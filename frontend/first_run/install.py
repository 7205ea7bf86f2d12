"""Packages into .venv with pip, with what it is at and how far. All that pip says is in a log."""

import os
import selectors
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO

from .pip_output import PipOutput
from .status_line import StatusLine

_VENV = Path(".venv")
_LOG = Path(".cache", "install.log")
_TICK_S = 0.5
_LAST_LINES = 12
_PIP = ("-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar=off", "--no-compile")
"""Without --no-compile, pip compiles every module, which takes longer than to install them; few are ever imported."""


class InstallFailed(Exception):
    """The message has the end of what pip wrote."""


def install(extras: str, alone: Sequence[str], *, add: bool) -> None:
    """Install what the `extras` need, and the packages `alone` without their dependencies.

    With `add` into the .venv that is there, otherwise into a new one, with this checkout. Raises InstallFailed.
    """
    _LOG.parent.mkdir(exist_ok=True)
    _LOG.unlink(missing_ok=True)
    status, started = StatusLine(), time.monotonic()
    try:
        if not add:
            if _VENV.is_symlink():  # what it leads to is somebody's: `venv --clear` would empty that
                _VENV.unlink()
            command = [sys.executable, "-m", "venv", "--clear", str(_VENV)]
            _run(command, lambda _: None, lambda: status.show(f"making {_VENV}"))
        before = _num_installed()
        _pip(requirements(extras.split(",")), status)
        # Built by the setuptools of .venv: pip would install another one for it alone, in a place of its own.
        _pip(["--no-deps", "--no-build-isolation", *([] if add else ["--editable", "."]), *alone], status)
    finally:
        status.clear()
    status.end(f"{_num_installed() - before} packages in {_VENV} after {time.monotonic() - started:.0f} s")


def requirements(extras: Sequence[str]) -> list[str]:
    """What this checkout needs to be built and to run, with these extras."""
    written = tomllib.loads(Path("pyproject.toml").read_text())
    of_extras = [written["project"]["optional-dependencies"][extra] for extra in extras]
    wanted = [written["build-system"]["requires"], written["project"]["dependencies"], *of_extras]
    return [package for packages in wanted for package in packages]


def _pip(arguments: Sequence[str], status: StatusLine) -> None:
    output, before = PipOutput(), _num_installed()
    command = [str(_VENV / "bin" / "python"), *_PIP, "--constraint", "constraints.txt", *arguments]
    _run(command, output.feed, lambda: status.show(*output.state(_num_installed() - before)))


def _num_installed() -> int:
    return len(list(_VENV.glob("lib/python3*/site-packages/*.dist-info")))


def _run(command: Sequence[str], feed: Callable[[str], None], tick: Callable[[], None]) -> None:
    """Run a command to its end, with its lines into `feed` and the log. `tick` is called at least every half second."""
    with (
        _LOG.open("a") as log,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process,
    ):
        assert process.stdout is not None
        try:
            with closing(_lines(process.stdout)) as lines:
                for line in lines:
                    if line is not None:
                        log.write(f"{line}\n")
                        feed(line)
                    tick()
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise InstallFailed(_failure(command, process.returncode))


def _lines(output: IO[bytes]) -> Generator[str | None, None, None]:
    """Lines as they come, and None whenever half a second has passed without one."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while True:
            if not selector.select(_TICK_S):
                yield None
                continue
            data = os.read(output.fileno(), 65536)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)
    if rest:
        yield rest.decode(errors="replace")


def _failure(command: Sequence[str], status: int) -> str:
    lines = [line for line in _LOG.read_text().splitlines() if line.strip()]
    tail = "\n".join(f"  {line[:300]}" for line in lines[-_LAST_LINES:])
    return f"{command[2]} ended with status {status}; all that it wrote is in {_LOG}, which ends:\n{tail}"
