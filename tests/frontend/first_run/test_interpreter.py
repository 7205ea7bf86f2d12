"""Which Python and which system: one list, and a message that older and newer Pythons can print."""

import ast
import platform
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from frontend.first_run import interpreter

ROOT = Path(__file__).parents[3]
FOR_ALL_PYTHONS = ("__init__.py", "__main__.py", "interpreter.py")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("module", FOR_ALL_PYTHONS)
def test_an_older_python_can_read_what_says_that_it_is_too_old(module: str) -> None:
    tree = ast.parse((ROOT / "frontend" / "first_run" / module).read_text(), feature_version=(3, 6))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported <= {"importlib.util", "os", "platform", "sys"}


def test_the_accepted_versions_are_those_of_the_project() -> None:
    lowest, highest = interpreter.ACCEPTED[0], interpreter.ACCEPTED[-1]
    assert PROJECT["project"]["requires-python"] == f">=3.{lowest[1]},<3.{highest[1] + 1}"
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py3{lowest[1]}"
    assert PROJECT["tool"]["mypy"]["python_version"] == f"3.{lowest[1]}"
    candidates = re.search(r"for python in (.*);", (ROOT / "Makefile").read_text())
    assert candidates is not None
    accepted = [f"python{major}.{minor}" for major, minor in interpreter.ACCEPTED]
    assert candidates[1].split() == ["python3", *reversed(accepted)]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_the_pages_name_the_accepted_versions(page: str) -> None:
    assert "Python " + " or ".join(f"{major}.{minor}" for major, minor in interpreter.ACCEPTED) in (
        ROOT / page
    ).read_text().replace("\n", " ")


def problems_with(monkeypatch: pytest.MonkeyPatch, version: tuple[int, int]) -> list[str]:
    found = SimpleNamespace(version_info=(*version, 0), executable="/usr/bin/python3", platform="linux")
    monkeypatch.setattr(interpreter, "sys", found)
    monkeypatch.setattr(platform, "python_version", lambda: "{}.{}.0".format(*version))
    return list(interpreter.problems())


@pytest.mark.parametrize("version", [(3, 8), (3, 10), (3, 13), (4, 0)])
def test_another_python_gets_one_line_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int]
) -> None:
    (problem,) = problems_with(monkeypatch, version)
    assert problem == (
        f"needs Python 3.11 or 3.12, and /usr/bin/python3 is {version[0]}.{version[1]}.0. Install one, on Debian and"
        " Ubuntu with: apt-get install python3.11 python3.11-venv libpython3.11 (or 3.12); or name one that is not on"
        " the PATH: make PYTHON=/path/to/python3.12 ..."
    )


@pytest.mark.parametrize("version", interpreter.ACCEPTED)
def test_an_accepted_python_has_no_problem(monkeypatch: pytest.MonkeyPatch, version: tuple[int, int]) -> None:
    assert problems_with(monkeypatch, version) == []


def test_a_python_without_venv_gets_the_package_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "_has", lambda module: module != "ensurepip")
    (problem,) = problems_with(monkeypatch, (3, 12))
    assert problem == (
        "/usr/bin/python3 cannot make a virtual environment. Install the rest of it, on Debian and Ubuntu with:"
        " apt-get install python3.12-venv"
    )


@pytest.mark.parametrize(
    ("system", "named"),
    [
        (("linux", "x86_64", "glibc 2.35"), None),
        (("linux", "x86_64", "glibc 2.41"), None),
        (("linux", "x86_64", "glibc 2.34"), "this system has glibc 2.34"),
        (("linux", "x86_64", ""), "the C library of this system is another"),
        (("linux", "aarch64", "glibc 2.41"), "this is linux on aarch64"),
        (("darwin", "arm64", ""), "this is darwin on arm64"),
    ],
)
def test_another_system_is_named(system: tuple[str, str, str], named: str | None) -> None:
    problems = list(interpreter.system_problems(*system))
    assert [named in problem for problem in problems if named] == [True] * len(problems)
    assert bool(problems) == bool(named)


def other_pythons() -> list[str]:
    """Those of this machine that are not accepted."""
    found = []
    for minor in (6, 7, 8, 9, 10, 13, 14):
        python = shutil.which(f"python3.{minor}")
        if python and subprocess.run([python, "--version"], capture_output=True, check=False).returncode == 0:
            found.append(python)
    found += map(str, Path.home().glob(".pyenv/versions/3.*/bin/python"))
    return [python for python in found if not re.search(r"3\.1[12]\b", str(Path(python).resolve()))]


@pytest.mark.parametrize("python", other_pythons() or [pytest.param("", marks=pytest.mark.skip("no other Python"))])
def test_make_says_in_its_first_line_which_python_it_needs(python: str) -> None:
    done = subprocess.run(
        ["make", "run", f"PYTHON={python}"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 2
    first, *_ = done.stderr.splitlines()
    assert first.startswith(f"first_run: needs Python 3.11 or 3.12, and {python} is 3.")
