"""Packages into .venv with uv, with what it is at and how far. All that it says is in a log."""

import ensurepip
import os
import selectors
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO

from .disk import uv_cache
from .pip_settings import for_uv, pip_options
from .status_line import StatusLine
from .uv_output import UvOutput

_VENV = Path(".venv")
_PYTHON = _VENV / "bin" / "python"
_UV = _VENV / "bin" / "uv"
_LOG = Path(".cache", "install.log")
_TICK_S = 0.5
_LAST_LINES = 12
_PIP = ("install", "--disable-pip-version-check", "--no-input", "--progress-bar=off", "--no-compile")
"""Without --no-compile, pip compiles every module, which takes longer than to install them; few are ever imported."""

FIRST = ("pip", "uv")
"""uv installs all others. On two cores: 93 packages in 6 s from its cache, in 23 s without; pip took 60 s."""


class InstallFailed(Exception):
    """The message has the end of what pip or uv wrote."""


def install(extras: str, alone: Sequence[str], *, add: bool) -> None:
    """Install what the `extras` need, and the packages `alone` without their dependencies.

    With `add` into the .venv that is there, otherwise into a new one, with this checkout. Raises InstallFailed.
    """
    _LOG.parent.mkdir(exist_ok=True)
    _LOG.unlink(missing_ok=True)
    status, started = StatusLine(), time.monotonic()
    try:
        if not add:
            _make_venv(status)
        if not _UV.exists():
            _install_uv(status)
        before = _num_installed()
        _uv(requirements(extras.split(",")), status)
        # Built by the setuptools of .venv: uv would install another one for it alone, in a place of its own.
        _uv(["--no-deps", "--no-build-isolation", *([] if add else ["--editable", "."]), *alone], status)
    finally:
        status.clear()
    status.end(f"{_num_installed() - before} packages in {_VENV} after {time.monotonic() - started:.0f} s")


def requirements(extras: Sequence[str]) -> list[str]:
    """What this checkout needs to be built and to run, with these extras."""
    written = tomllib.loads(Path("pyproject.toml").read_text())
    of_extras = [written["project"]["optional-dependencies"][extra] for extra in extras]
    wanted = [written["build-system"]["requires"], written["project"]["dependencies"], *of_extras]
    return [package for packages in wanted for package in packages]


def _make_venv(status: StatusLine) -> None:
    if _VENV.is_symlink():  # what it leads to is somebody's: `venv --clear` would empty that
        _VENV.unlink()
    command = [sys.executable, "-m", "venv", "--clear", "--without-pip", str(_VENV)]
    _run("venv", command, lambda _: None, lambda: status.show(f"making {_VENV}"))


def _install_uv(status: StatusLine) -> None:
    """With the pip that this Python carries, as it is: ensurepip would compile all of it, which takes seconds."""
    started = time.monotonic()
    command = [str(_PYTHON), str(_pip_wheel() / "pip"), *_PIP, "--constraint", "constraints.txt", *FIRST]

    def show() -> None:
        status.show(f"getting uv, which installs the packages, {time.monotonic() - started:.0f} s")

    _run("pip", command, lambda _: None, show)


def _pip_wheel() -> Path:
    """A wheel can be run like the directory that is in it. Debian and Fedora keep theirs outside of ensurepip."""
    folder = Path(sysconfig.get_config_var("WHEEL_PKG_DIR") or Path(ensurepip.__file__).parent / "_bundled")
    wheels = sorted(folder.glob("pip-*.whl"))
    if not wheels:
        raise InstallFailed(
            f"{sys.executable} has no wheel of pip in {folder}; install all of it, or name another Python"
        )
    return wheels[-1]


def _uv(arguments: Sequence[str], status: StatusLine) -> None:
    output, before = UvOutput(), _num_installed()
    constraints = ["constraints.txt", *pip_options(os.environ).get("constraint", "").split()]
    command = [str(_UV), "pip", "install", "--color=never", f"--python={_PYTHON}"]
    command += [f"--constraint={file}" for file in constraints]
    variables = {**for_uv(os.environ), "UV_CACHE_DIR": str(uv_cache(os.environ))}

    def show() -> None:
        status.show(*output.state(_num_installed() - before))

    _run("uv", [*command, *arguments], output.feed, show, variables)


def _num_installed() -> int:
    return len(list(_VENV.glob("lib/python3*/site-packages/*.dist-info")))


def _run(
    name: str,
    command: Sequence[str],
    feed: Callable[[str], None],
    tick: Callable[[], None],
    variables: Mapping[str, str] | None = None,
) -> None:
    """Run a command to its end, with its lines into `feed` and the log. `tick` is called at least every half second.

    `name` is what a failure calls it, and `variables` its environment, if it is not that of this process.
    """
    with (
        _LOG.open("a") as log,
        subprocess.Popen(
            command, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
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
        raise InstallFailed(_failure(name, process.returncode))


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


def _failure(name: str, status: int) -> str:
    lines = [line for line in _LOG.read_text().splitlines() if line.strip()]
    tail = "\n".join(f"  {line[:300]}" for line in lines[-_LAST_LINES:])
    return f"{name} ended with status {status}; all that it wrote is in {_LOG}, which ends:\n{tail}"
