"""What is shown while packages are installed, and what is said when pip fails."""

import io
import re
import sys
from pathlib import Path

import pytest

from frontend.first_run import install as installation
from frontend.first_run.install import InstallFailed, install, requirements
from frontend.first_run.pip_output import PipOutput
from frontend.first_run.status_line import StatusLine

LINES = """Obtaining file:///work/checkout
  Installing build dependencies: started
Collecting numpy<2 (from mixtral-triton==0.1.0)
  Obtaining dependency information for numpy<2 from https://files.pythonhosted.org/packages/ab/numpy.whl.metadata
  Using cached numpy-1.26.4-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl.metadata (61 kB)
Collecting openvino (from mixtral-triton==0.1.0)
  Downloading openvino-2026.4.1-20261-cp311-cp311-manylinux_2_28_x86_64.whl (50.1 MB)
Collecting numpy<2 (from openvino)
Using cached numpy-1.26.4-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl (18.3 MB)
Installing collected packages: numpy, openvino, mixtral-triton
Successfully installed mixtral-triton-0.1.0 numpy-1.26.4 openvino-2026.4.1
""".splitlines()
"""As pip 23.2 prints them."""


@pytest.mark.parametrize(
    ("num_lines", "num_installed", "shown"),
    [
        (0, 0, ("starting pip", None)),
        (3, 0, ("1 package found, looking for numpy", None)),
        (5, 0, ("1 package found, reading numpy-1.26.4 (61 kB)", None)),
        (7, 0, ("2 packages found, downloading openvino-2026.4.1 (50.1 MB)", None)),
        (9, 0, ("2 packages found, reading numpy-1.26.4 (18.3 MB)", None)),
        (10, 0, ("installed 0 of 3 packages", 0.0)),
        (10, 2, ("installed 2 of 3 packages", 2 / 3)),
        (11, 3, ("installed 3 of 3 packages", 1.0)),
    ],
)
def test_the_lines_of_pip_say_what_it_is_at(
    num_lines: int, num_installed: int, shown: tuple[str, float | None]
) -> None:
    output = PipOutput()
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


def test_pip_is_killed_with_what_runs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".cache").mkdir()

    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    program = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        installation._run([sys.executable, "-c", program], interrupted, lambda: None)
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
