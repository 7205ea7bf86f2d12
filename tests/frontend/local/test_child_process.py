"""A child and all that it has started end together; what it writes is its own user's."""

import subprocess
import sys
import time
from pathlib import Path

import psutil

from frontend.local.child_process import children_of, kill_session, start_child

PARENT = """
import subprocess, sys
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(grandchild.pid, flush=True)
if "ends" not in sys.argv:
    grandchild.wait()
"""


def start_parent(log: Path, *arguments: str) -> "tuple[subprocess.Popen[bytes], psutil.Process]":
    """A child, and its own child."""
    with log.open("wb") as output:
        process = start_child([sys.executable, "-c", PARENT, *arguments], environment={}, output=output, umask=0o077)
    while not log.read_text().endswith("\n"):
        assert process.poll() in (None, 0), log.read_text()
        time.sleep(0.01)
    return process, psutil.Process(int(log.read_text()))


def test_killing_a_child_kills_what_it_has_started(tmp_path: Path) -> None:
    process, grandchild = start_parent(tmp_path / "log")
    assert children_of(process.pid) == [grandchild.pid]
    kill_session(process)
    process.wait()
    psutil.wait_procs([grandchild], timeout=60)
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE


def test_what_a_child_has_started_is_killed_also_after_the_child_has_ended(tmp_path: Path) -> None:
    process, grandchild = start_parent(tmp_path / "log", "ends")
    assert process.wait(60) == 0
    kill_session(process)
    psutil.wait_procs([grandchild], timeout=60)
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE


def test_files_of_a_child_with_a_umask_are_its_own_users(tmp_path: Path) -> None:
    command = [sys.executable, "-c", f"open({str(tmp_path / 'made')!r}, 'w')"]
    assert start_child(command, environment={}, umask=0o077).wait(60) == 0
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o600
