"""Which perf_analyzer `make perf` takes without containers. tests/e2e/test_perf_local.py runs it."""

import os
import zipfile
from pathlib import Path

import pytest

from tests.benchmarks import perf_program
from tests.benchmarks.perf_program import WHEELS, Wheel, find_program, fitting_wheel, glibc_version, soname


def test_the_one_on_the_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "perf_analyzer"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = find_program()
    assert (found.path, found.environment) == (program, {})


@pytest.mark.parametrize(
    ("glibc", "requirement"),
    [((2, 39), "perf-analyzer==2.60.0"), ((2, 38), "perf-analyzer==2.60.0"), ((2, 36), "tritonclient==2.41.0")],
)
def test_the_newest_wheel_whose_binary_runs_here_is_taken(glibc: tuple[int, int], requirement: str) -> None:
    assert fitting_wheel(glibc).requirement == requirement


@pytest.mark.parametrize(("glibc", "found"), [((2, 31), "2.31"), ((0, 0), "0.0")])
def test_a_machine_that_runs_none_is_told_what_is_missing(glibc: tuple[int, int], found: str) -> None:
    with pytest.raises(SystemExit, match=f"has glibc {found}; perf_analyzer needs 2.34 or newer, or one on the PATH"):
        fitting_wheel(glibc)


def test_the_glibc_of_this_machine_is_read() -> None:
    assert glibc_version() >= (2, 17), "that of the oldest machine that the wheels of Triton run on"


def test_a_wheel_with_another_hash_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip compares it. The wheel here is a local one, so that no network is needed."""
    with zipfile.ZipFile(tmp_path / "other-1.0-py3-none-any.whl", "w") as content:
        content.writestr("bin/perf_analyzer", "not the program")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    wheel = Wheel("other==1.0", "0" * 64, "bin/perf_analyzer", (2, 0))
    with pytest.raises(SystemExit, match="cannot be fetched"):
        perf_program.fetch(wheel, tmp_path / "kept" / "perf_analyzer")
    assert not (tmp_path / "kept").exists()


def test_libraries_are_linked_under_the_names_that_are_loaded() -> None:
    assert soname("libcudart-09529672.so.12.6.77") == "libcudart.so.12"
    assert soname("libb64-98cb6333.so.0d") == "libb64.so.0d"


def test_wheels_are_pinned() -> None:
    assert all(len(wheel.sha256) == 64 and "==" in wheel.requirement for wheel in WHEELS)
    assert [wheel.glibc for wheel in WHEELS] == sorted((wheel.glibc for wheel in WHEELS), reverse=True)
