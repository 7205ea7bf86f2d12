"""Child processes that are killed when this process ends, however it ends; and the children of a process.

Linux only, as Triton is. Only for programs with a single thread: the kernel kills the child when the thread that
started it ends. Not here: watching and stopping them, see __main__.py.
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
"""Of <linux/prctl.h>: the signal to send to this process when its parent ends."""

_LIBC = ctypes.CDLL(None)


def start_child(
    command: Sequence[str], *, environment: Mapping[str, str] | None = None, output: BinaryIO | None = None
) -> "subprocess.Popen[bytes]":
    """Start a process that is killed when this one ends.

    It has a session of its own, so that Ctrl-C in a terminal does not reach it: its parent stops its children in order.
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
    """The processes that `pid` has started, including those that have ended and were not waited for."""
    children = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # the process has ended meanwhile
            # "PID (NAME) STATE PARENT ..."; NAME may contain parentheses.
            parent = stat.read_text().rpartition(")")[2].split()[1]
            if int(parent) == pid:
                children.append(int(stat.parent.name))
    return children


def _die_with_parent(parent: int) -> None:
    """Run in the child, between fork and exec."""
    # Not SIGTERM: the ports are free at once when the service is started again.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before the line above
        os._exit(1)
