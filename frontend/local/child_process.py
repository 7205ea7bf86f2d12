"""Child processes that are killed when this process ends, however it ends; and the children of a process.

Linux only, as Triton is. Only for programs with a single thread: the kernel kills the child when the thread that
started it ends. Not here: watching and stopping them in order, see supervisor.py.
"""

import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from .hidden_argument import hide, insert, stop_when_loaded

_PR_SET_PDEATHSIG = 1
"""Of <linux/prctl.h>: the signal to send to this process when its parent ends."""

_LIBC = ctypes.CDLL(None)


def start_child(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    output: IO[Any] | None = None,
    umask: int = -1,
    secret: str | None = None,
) -> "subprocess.Popen[bytes]":
    """Start a process that is killed when this one ends.

    `secret` is an argument that other users must not see; raises OSError or SubprocessError if it cannot be hidden.
    It has a session of its own, so that Ctrl-C in a terminal does not reach it: its parent stops its children in order.
    """
    if secret is not None:
        command, environment = hide(secret, command, environment)
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        start_new_session=True,
        umask=umask,
        preexec_fn=partial(_before_exec, os.getpid(), stop=secret is not None),
    )
    if secret is not None:
        try:
            insert(process.pid)
        except BaseException:
            kill_session(process)
            process.wait()
            raise
    return process


def kill_session(process: "subprocess.Popen[bytes]") -> None:
    """Kill what runs of a child and of all that it has started, also where the child itself has ended."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


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


def _before_exec(parent: int, *, stop: bool) -> None:
    """Run in the child, between fork and exec."""
    # Not SIGTERM: the ports are free at once when the service is started again.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before the line above
        os._exit(1)
    if stop:
        stop_when_loaded()
