"""What is shown while packages are installed, and what is said when pip or uv fails."""

import io
import re
import sys
import sysconfig
from pathlib import Path

import pytest

from frontend.first_run import install as installation
from frontend.first_run.commands import run
from frontend.first_run.install import InstallFailed, install, requirements
from frontend.first_run.status_line import StatusLine
from frontend.first_run.uv_output import UvOutput

LINES = """Using Python 3.11.7 environment at: .venv
Resolved 94 packages in 1.93s
Downloading openvino (56.4MiB)
Downloading numpy (17.5MiB)
Downloading jiter (512.0KiB)
   Building mixtral-triton @ file:///work/checkout
 Downloaded jiter
 Downloaded numpy
      Built mixtral-triton @ file:///work/checkout
 Downloaded openvino
Prepared 3 packages in 6.50s
Installed 94 packages in 405ms
 + numpy==1.26.4
""".splitlines()
"""As uv 0.13 prints them without a terminal."""


@pytest.mark.parametrize(
    ("num_lines", "num_installed", "shown"),
    [
        (0, 0, ("looking for packages", None)),
        (2, 0, ("94 packages found", None)),
        (5, 0, ("downloaded 0 of 74 MiB, now openvino", 0.0)),
        (8, 0, ("downloaded 18 of 74 MiB, now openvino", 18 / 74.4)),
        (10, 0, ("building mixtral-triton", None)),
        (11, 0, ("unpacking 3 packages", None)),
        (11, 50, ("installed 50 packages", None)),
    ],
)
def test_the_lines_of_uv_say_what_it_is_at(num_lines: int, num_installed: int, shown: tuple[str, float | None]) -> None:
    output = UvOutput()
    for line in LINES[:num_lines]:
        output.feed(line)
    assert output.state(num_installed) == shown


PROJECT = """[build-system]
requires = ["setuptools>=80"]
[project]
dependencies = ["numpy<2"]
[project.optional-dependencies]
chat = ["no-such-package"]
test = ["pytest"]
"""


def test_requirements_are_those_of_the_project_with_the_extras_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    assert requirements(["test"]) == ["setuptools>=80", "numpy<2", "pytest"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_one_line_with_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    monkeypatch.setenv("COLUMNS", "60")
    status = StatusLine()
    status.show("installed 1 of 2 packages", 0.5)
    status.show("x" * 100)
    status.end("2 packages")
    first, second, last = screen.getvalue().split("\r\x1b[K")[1:]
    assert first == "      [############............] installed 1 of 2 packages"
    assert len(second) == 59
    assert last == "      2 packages\n"


def test_a_log_gets_a_line_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr("frontend.first_run.status_line.time.monotonic", lambda: now)
    status = StatusLine()
    for second in range(7):
        now = float(second)
        status.show(f"at {second} s", second / 10)
    status.end("done")
    assert capsys.readouterr().err.splitlines() == ["      at 3 s", "      at 6 s", "      done"]


def test_a_failure_has_the_end_of_what_pip_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a real pip that asks no index, and so finds nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "constraints.txt").touch()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    with pytest.raises(InstallFailed) as failure:
        install("chat", [], add=True)
    first, *end = str(failure.value).splitlines()
    assert first == "pip ended with status 1; all that it wrote is in .cache/install.log, which ends:"
    assert any("ERROR" in line for line in end)
    assert (tmp_path / ".cache" / "install.log").read_text().splitlines()[-1].strip() in end[-1]


def test_the_installer_is_killed_with_what_runs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".cache").mkdir()

    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    program = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        installation._run("test", [sys.executable, "-c", program], interrupted, lambda: None)
    (line,) = (tmp_path / ".cache" / "install.log").read_text().splitlines()
    assert re.fullmatch(r"\d+", line)
    assert not Path("/proc", line).exists()


def test_an_environment_that_is_linked_from_elsewhere_is_not_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "constraints.txt").touch()
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").touch()
    (tmp_path / ".venv").symlink_to("elsewhere")
    with pytest.raises(InstallFailed):
        install("chat", [], add=False)
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["kept"]
    assert not (tmp_path / ".venv").is_symlink()


def test_a_python_without_the_wheel_of_pip_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", lambda _: str(tmp_path))
    with pytest.raises(InstallFailed, match=f"{sys.executable} has no wheel of pip in {tmp_path}; install all of it"):
        installation._pip_wheel()


def test_a_network_that_is_lost_meanwhile_is_named_after_what_pip_wrote(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise InstallFailed("pip ended with status 1")

    monkeypatch.setattr("frontend.first_run.commands.install", fail)
    monkeypatch.setattr("frontend.first_run.disk.problems", lambda *_, **__: iter(()))
    monkeypatch.setattr("frontend.first_run.network.problems", lambda _: iter(["network: the index does not answer"]))
    assert run(["install", "--unchecked", "chat"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "first_run: pip ended with status 1",
        "first_run: network: the index does not answer",
    ]
