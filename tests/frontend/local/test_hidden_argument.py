"""A secret argument reaches the program, and is not where every user can read it."""

import subprocess
import sys
from pathlib import Path

import pytest

from frontend.local.child_process import kill_session, start_child

SECRET = "--key=of this start"
WRITE_ARGUMENTS = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(repr(sys.argv[2:])); sys.stdin.close()"
WAIT = "import time; time.sleep(60)"


@pytest.mark.parametrize("arguments", [[SECRET], ["before", SECRET], ["", SECRET, "after", "x" * 5000]])
def test_the_program_gets_the_secret_among_its_arguments(tmp_path: Path, arguments: list[str]) -> None:
    command = [sys.executable, "-c", WRITE_ARGUMENTS, str(tmp_path / "seen"), *arguments]
    assert start_child(command, environment={"LONG": "y" * 5000}, secret=SECRET).wait(30) == 0
    assert (tmp_path / "seen").read_text() == repr(arguments)


def test_the_command_line_that_all_can_read_has_a_placeholder() -> None:
    process = start_child([sys.executable, "-c", WAIT, SECRET], environment={}, secret=SECRET)
    try:
        shown = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
        assert shown == [sys.executable.encode(), b"-c", WAIT.encode(), b"(hidden)", b""]
        assert Path(f"/proc/{process.pid}/environ").stat().st_mode & 0o077 == 0
    finally:
        kill_session(process)
        process.wait()


def test_a_program_that_does_not_exist_is_reported_as_without_a_secret() -> None:
    with pytest.raises(FileNotFoundError):
        start_child(["/no/such/program", SECRET], environment={}, secret=SECRET)


def test_where_ptrace_is_not_allowed_nothing_is_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse() -> None:
        raise PermissionError

    monkeypatch.setattr("frontend.local.child_process.stop_when_loaded", refuse)
    with pytest.raises(subprocess.SubprocessError):
        start_child(
            [sys.executable, "-c", WRITE_ARGUMENTS, str(tmp_path / "seen"), SECRET], environment={}, secret=SECRET
        )
    assert not (tmp_path / "seen").exists()
