"""Child processes that do not outlive this one, however it ends, and the children of a child.

Linux only, as Triton is. Refuses to watch or end them: local.py does. For programs with one thread: the kernel takes
the end of the thread that started a child for the end of its parent.
"""

import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def start_child(
    command: Sequence[str], *, environment: Mapping[str, str] | None = None, output: BinaryIO | None = None
) -> "subprocess.Popen[bytes]":
    """Start a process that is killed when this one dies.

    It has a session of its own: Ctrl-C in a terminal reaches its supervisor alone, which ends its children in order.
    """
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=partial(_die_with_parent, os.getpid()),
    )


def children_of(pid: int) -> list[int]:
    """The processes that `pid` has started, those that have ended and were not waited for included."""
    children = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            # "PID (NAME) STATE PARENT ...", and a name may hold parentheses.
            parent = stat.read_text().rpartition(")")[2].split()[1]
            if int(parent) == pid:
                children.append(int(stat.parent.name))
    return children


def _die_with_parent(parent: int) -> None:
    """Runs in the child, between fork and exec."""
    # Not SIGTERM: whoever starts the service again finds its ports free.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
