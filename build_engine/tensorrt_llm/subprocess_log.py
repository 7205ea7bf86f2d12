"""Run one of NVIDIA's programs: show and keep its log, measure its peak memory, end it when the build is stopped."""

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from build_engine.errors import HostError, ToolFailed
from build_engine.signals import uninterrupted

from .host import session_memory_mib, session_processes
from .known_failures import known_failure

_SHOWN_LINES = 20
"""Last lines of its log that are shown when a program fails."""
_SEARCHED_LINES = 300
"""Last lines that are searched for the reason. After it, Triton prints its options and the builder tracebacks."""
_HEARTBEAT_S = 30.0
_MEMORY_SAMPLE_S = 5.0
_POLL_S = 1.0
_TERMINATION_S = 10.0
_END_POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A program to run; it inherits `keep_open`. `say` shows a line, `gpu_memory_mib` samples the fullest GPU."""

    what: str
    command: Sequence[str]
    log: Path
    output: Path
    say: Callable[[str], None]
    gpu_memory_mib: Callable[[], int]
    keep_open: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUsage:
    """What a finished run took: its peaks of host memory, all processes together, and of the fullest GPU's memory."""

    seconds: float
    host_mib: int
    gpu_mib: int

    def __str__(self) -> str:
        return f"{self.seconds:.0f} s, at most {self.host_mib} MiB of host and {self.gpu_mib} MiB of GPU memory"


def run_tool(run: Run) -> ToolUsage:
    """Run to the end. Raises ToolFailed for any status but 0, HostError when the program cannot be started.

    If anything else is raised meanwhile, such as BuildInterrupted, the program and its children are ended.
    """
    started = time.monotonic()
    with run.log.open("w") as log:
        process = start_group(
            f"{run.what}: {run.command[0]}",
            run.command,
            output=subprocess.PIPE,
            environment={"PYTHONUNBUFFERED": "1"},
            keep_open=run.keep_open,
        )
        try:
            watch = _follow(run, process, log.write)
            status, largest_mib = _reap(process)
        except BaseException:
            with uninterrupted():
                end_group(process)
            raise
    if status:
        raise failed(run.what, run.command[0], status, run.log)
    # Samples may have missed the peak of one process, which the kernel reports.
    host_mib = max(watch.host_mib, largest_mib)
    return ToolUsage(seconds=time.monotonic() - started, host_mib=host_mib, gpu_mib=watch.gpu_mib)


def start_group(
    name: str,
    command: Sequence[str],
    *,
    output: int | BinaryIO,
    environment: Mapping[str, str] | None = None,
    keep_open: tuple[int, ...] = (),
) -> "subprocess.Popen[bytes]":
    """Start a program in a session of its own, for `end_group`, with all that it prints to `output`.

    `environment` is added to this process's. The program inherits the descriptors `keep_open`. Raises HostError, with
    `name` in front, when it cannot be started.
    """
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
            pass_fds=keep_open,
        )
    except OSError as error:
        raise HostError(f"{name} cannot be started ({error.strerror})") from error


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """End what `start_group` started, and return when none of its processes is left: they may hold a lock or a port."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        for pid in session_processes(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signum)
        if _end_within(process, _TERMINATION_S):
            return


def _end_within(process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    give_up = time.monotonic() + seconds
    while session_processes(process.pid):
        if time.monotonic() > give_up:
            return False
        time.sleep(_END_POLL_S)
    process.wait()
    return True


def _follow(run: Run, process: "subprocess.Popen[bytes]", write: Callable[[str], object]) -> "_Watch":
    """Show and log the output until it ends. Returns the watch, with the most memory seen."""
    assert process.stdout is not None, "stdout is a pipe"
    watch = _Watch(run, process.pid)
    rest = b""
    with process.stdout as output, selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while True:
            if selector.select(_POLL_S):
                data = os.read(output.fileno(), 2**16)
                *lines, rest = (rest + data).split(b"\n")
                if not data and rest:
                    lines.append(rest)
                for line in lines:
                    # A progress bar redraws its line: keep its last state.
                    text = line.decode(errors="replace").rstrip().rpartition("\r")[2]
                    write(text + "\n")
                    run.say(f"{run.what} | {text}")
                if not data:
                    return watch
            watch.look()


class _Watch:
    """Samples the memory in use every few seconds, and shows a heartbeat every half minute.

    The program runs in a session of its own, `session`. `gpu_mib` and `host_mib` are the most seen so far.
    """

    def __init__(self, run: Run, session: int) -> None:
        self._run = run
        self._session = session
        self._started = self._last_heartbeat = self._last_sample = time.monotonic()
        self.gpu_mib = self.host_mib = 0
        self._sample()

    def look(self) -> None:
        now = time.monotonic()
        if now - self._last_sample > _MEMORY_SAMPLE_S:
            self._last_sample = now
            self._sample()
        if now - self._last_heartbeat > _HEARTBEAT_S:
            self._last_heartbeat = now
            self._run.say(_heartbeat(self._run, now - self._started, self.gpu_mib))

    def _sample(self) -> None:
        self.gpu_mib = max(self.gpu_mib, self._run.gpu_memory_mib())
        self.host_mib = max(self.host_mib, session_memory_mib(self._session))


def _heartbeat(run: Run, seconds: float, gpu_mib: int) -> str:
    written = sum(file.stat().st_size for file in run.output.rglob("*") if file.is_file())
    return f"{run.what}: {seconds:.0f} s, {written / 2**30:.1f} GiB written, {gpu_mib} MiB of GPU memory in use"


def _reap(process: "subprocess.Popen[bytes]") -> tuple[int, int]:
    """The exit status, and the peak resident MiB of the tool's largest process."""
    _, wait_status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(wait_status)
    return process.returncode, usage.ru_maxrss // 1024


def failed(what: str, program: str, status: int, log: Path) -> ToolFailed:
    """The error for a program that failed: how it ended, what is known about that, what to try, the end of its log."""
    ended = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    last_lines = log.read_text(errors="replace").splitlines()[-_SEARCHED_LINES:]
    message = f"{what}: {Path(program).name} {ended}"
    if failure := known_failure("\n".join(last_lines), status):
        message += f": {failure.known}; try: {failure.remedy}"
    return ToolFailed(f"{message}; its log is {log}", last_lines[-_SHOWN_LINES:])


def show(line: str) -> None:
    """Print a line on stderr at once."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
