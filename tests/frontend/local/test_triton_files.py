"""Triton's files outside of its directory are private while it runs and gone afterwards; those of others stay."""

import os
from pathlib import Path

import pytest

from frontend.local import triton_files
from frontend.local.triton_files import TritonFiles


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With its own /tmp and /dev/shm, where the time is 100 at first."""
    for name in ("tmp", "shm"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(triton_files, f"_{name.upper()}", tmp_path / name)
    set_time(monkeypatch, 100)
    return tmp_path


def set_time(monkeypatch: pytest.MonkeyPatch, now: float) -> None:
    monkeypatch.setattr("frontend.local.triton_files.time.time", lambda: now)


def make(directory: Path, at: float) -> Path:
    directory.mkdir()
    os.utime(directory, (at, at))
    return directory


def test_regions_become_private_and_are_removed(host: Path) -> None:
    files, other = TritonFiles(), TritonFiles()
    ours, theirs = host / "shm" / f"{files.shm_prefix}1", host / "shm" / f"{other.shm_prefix}1"
    for region in (ours, theirs):
        region.touch(0o644)
    files.make_private()
    assert [region.stat().st_mode & 0o777 for region in (ours, theirs)] == [0o600, 0o644]
    files.remove()
    assert [region.exists() for region in (ours, theirs)] == [False, True]


def test_only_an_empty_directory_made_while_it_started_is_removed(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = TritonFiles()
    set_time(monkeypatch, 110)
    files.are_complete()
    ours = make(host / "tmp" / "python_env_abcdef", at=105)
    others = [
        make(host / "tmp" / "python_env_earlie", at=50),
        make(host / "tmp" / "python_env_later1", at=111),
        make(host / "tmp" / "python_environment", at=105),
    ]
    used = make(host / "tmp" / "python_env_inuse1", at=105)
    (used / "0").mkdir()
    os.utime(used, (105, 105))
    files.remove()
    assert not ours.exists()
    assert all(directory.exists() for directory in (*others, used))


def test_of_a_server_that_never_was_ready_the_directory_is_removed_too(host: Path) -> None:
    files = TritonFiles()
    ours = make(host / "tmp" / "python_env_abcdef", at=105)
    files.remove()
    assert not ours.exists()
