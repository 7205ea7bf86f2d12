"""Triton and the frontend as two children: started, watched, started again where asked for, and stopped in order.

Both are ended when a process that Triton started ends, because Triton still reports the model as ready then. Not here:
the command line and what is printed when all runs, see __main__.py.
"""

import os
import secrets
import select
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from frontend.errors import StartupError
from frontend.settings import TRITON_KEY_VARIABLE

from .child_process import children_of, kill_session, start_child
from .health import HUNG_AFTER_S, HealthWatch, health_status
from .ports import ReservedPort, check_free
from .restarts import MAX_RESTARTS, Restarts
from .runtime_dir import RuntimeDir, open_private
from .starting import Starting, remedy
from .stop_signals import SIGNALS, Stop, StopSignals
from .triton_files import TritonFiles
from .tritonserver import TritonSettings, TritonUnavailable, start_triton

START_TIMEOUT_S = 300.0

_ONE_SIGNAL_S = 0.2
"""Signals that follow each other faster are one: `timeout` and process managers send one to a process and its group."""

_POLL_INTERVAL_S = 0.1

_ERROR_PERIOD_S = 2.0
"""How long the frontend still runs when Triton has ended: clients get their errors, and /health answers 503."""

_TERMINATION_S = 15.0
"""How long a process may take to stop before it is killed; longer than Triton's --exit-timeout-secs."""

_LOG_TAIL_LINES = 15


class Ended(Exception):
    """A process has ended or hangs; the message has its name, its exit status and the end of Triton's log."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class Supervisor:
    """The two processes, as a context manager: leaving it stops those that run, the frontend first.

    `frontend_stops_within_s` is how long the frontend takes to end in order at most. `stop_signals` end all waiting.
    """

    def __init__(
        self,
        arguments: Namespace,
        frontend_options: Sequence[str],
        url: str,
        frontend_stops_within_s: float,
        stop_signals: StopSignals,
    ) -> None:
        self._arguments = arguments
        self._stop_signals = stop_signals
        self._frontend_options = frontend_options
        self._manifest = engine_dir_of(arguments) / "manifest.json"
        self._health_url = f"{url}/health"
        self._frontend_stops_within_s = frontend_stops_within_s
        self._key = secrets.token_hex(32)
        self._restarts = Restarts(MAX_RESTARTS if arguments.restart else 0)
        self._held = ExitStack()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._triton_files = TritonFiles()

    def __enter__(self) -> "Supervisor":
        return self

    def __exit__(self, _: object, reason: BaseException | None, __: object) -> None:
        self._stopped_at = time.monotonic()
        for signum in SIGNALS:
            signal.signal(signum, self._kill)  # a second Ctrl-C kills at once
        # On SIGTERM the frontend serves on for a while, for load balancers. A person at a terminal does not wait.
        is_drained = isinstance(reason, Stop) and reason.signum == signal.SIGTERM
        self._stop("frontend", signal.SIGTERM if is_drained else signal.SIGINT)
        self._stop("triton", signal.SIGTERM)
        self._held.close()

    def start(self, say: Callable[[str], None]) -> None:
        """Start both and wait until they are ready. Raises StartupError, and Ended if one of them ends."""
        arguments = self._arguments
        check_free(arguments.host, arguments.port, "--port")
        self._http_port = self._hold(arguments.triton_port, "--triton-port")
        self._metrics_port = self._hold(arguments.metrics_port, "--metrics-port")
        if not self._manifest.exists():
            raise StartupError(
                f"{self._manifest.parent} holds no engine;"
                f" build it with: python -m build_engine build --target {arguments.model}"
                f" --model-repository {arguments.model_repository} CHECKPOINT"
            )
        self._runtime_dir = self._held.enter_context(closing(RuntimeDir(arguments.runtime_dir)))
        self._runtime_dir.write_triton_key(self._key)
        self._start("triton")
        self._start("frontend")  # which waits for Triton, and loads its tokenizer meanwhile
        self._await_serving(say)

    def serve(self, say: Callable[[str], None]) -> NoReturn:
        """Watch both, and start again what ends, if that is asked for. Raises Ended if it is not, or ends too often."""
        while True:
            try:
                self._watch()
            except Ended as ended:
                self._start_again(ended, say)

    # ---- starting --------------------------------------------------------------------------------------------------

    def _hold(self, port: int, option: str) -> int:
        return self._held.enter_context(closing(ReservedPort(port, option))).port

    def _start(self, name: str) -> None:
        starts = {"triton": self._start_triton, "frontend": self._start_frontend}
        self._processes[name] = starts[name]()

    def _start_triton(self) -> "subprocess.Popen[bytes]":
        self._triton_files = TritonFiles()
        settings = TritonSettings(
            model_repository=self._arguments.model_repository,
            model=self._arguments.model,
            http_port=self._http_port,
            metrics_port=self._metrics_port,
            runtime_dir=self._runtime_dir.path,
            key=self._key,
            shm_prefix=self._triton_files.shm_prefix,
        )
        self._engine = self._manifest.read_bytes()
        try:
            with open_private(self._runtime_dir.triton_log) as log:
                return start_triton(settings, log)
        except TritonUnavailable as exc:
            raise StartupError(str(exc)) from exc

    def _start_frontend(self) -> "subprocess.Popen[bytes]":
        addresses = {
            "--triton-url": f"http://127.0.0.1:{self._http_port}",
            "--triton-metrics-url": f"http://127.0.0.1:{self._metrics_port}/metrics",
        }
        options = [part for address in addresses.items() for part in address]
        environment = {**os.environ, TRITON_KEY_VARIABLE: self._key}
        command = [sys.executable, "-m", "frontend", *options, *self._frontend_options]
        return start_child(command, environment=environment)

    def _await_serving(self, say: Callable[[str], None]) -> None:
        """The frontend is healthy once Triton has the model ready."""
        starting = Starting(self._runtime_dir.triton_log, say)
        give_up = time.monotonic() + START_TIMEOUT_S
        while health_status(self._health_url) != 200:
            self._stop_signals.check()
            for name, process in self._processes.items():
                if process.poll() is not None:
                    status = f"{name} ended with status {process.returncode} while starting"
                    raise Ended(name, status + self._last_lines(name))
            if time.monotonic() > give_up:
                raise Ended("triton", f"triton is not ready after {START_TIMEOUT_S:g} s{self._last_lines('triton')}")
            self._triton_files.make_private()  # early, as another user could open them and read on
            starting.tick()
            if starting.has_no_backend(lambda: children_of(self._processes["triton"].pid)):
                raise Ended("triton", f"triton's backend process did not start{self._last_lines('triton')}")
            time.sleep(_POLL_INTERVAL_S)
        self._triton_files.are_complete()

    # ---- watching --------------------------------------------------------------------------------------------------

    def _watch(self) -> NoReturn:
        """Raises Ended."""
        health = HealthWatch(lambda: health_status(self._health_url))
        with ExitStack() as stack:
            backends = [os.pidfd_open(pid) for pid in children_of(self._processes["triton"].pid)]
            for backend in backends:
                stack.callback(os.close, backend)
            while True:
                backend_ended, _, _ = select.select(backends, [], [], _POLL_INTERVAL_S)
                self._stop_signals.check()
                for name, process in self._processes.items():
                    if process.poll() is not None:
                        raise Ended(name, f"{name} ended with status {process.returncode}{self._last_lines(name)}")
                if backend_ended:
                    raise Ended("triton", f"triton's backend process ended{self._last_lines('triton')}")
                if health.is_hung():
                    reason = f"triton hangs: /health has answered 503 for {HUNG_AFTER_S:g} s"
                    raise Ended("triton", reason + self._last_lines("triton"))

    def _start_again(self, ended: Ended, say: Callable[[str], None]) -> None:
        """Raises `ended` if nothing is to be started again, or what ends of the processes that were started again."""
        since = time.monotonic()
        self._end(ended.name)  # without its backend process, Triton would answer each request with an error, after 1 s
        wait_s = self._restarts.wait_after_end(since)
        if wait_s is None:
            if ended.name == "triton":
                time.sleep(_ERROR_PERIOD_S)
            raise ended
        say(f"{ended}")
        say(f"starting {ended.name} again" + (f" in {wait_s:g} s" if wait_s else ""))
        time.sleep(wait_s)
        try:
            self._restart(ended.name, say)
        except Ended as again:
            self._start_again(again, say)
        else:
            say(f"{ended.name} serves again after {time.monotonic() - since:.1f} s")

    def _restart(self, name: str, say: Callable[[str], None]) -> None:
        """With the frontend, if an engine was published meanwhile: its tokenizer may be another one."""
        if name == "triton" and self._manifest.read_bytes() != self._engine:
            self._stop("frontend", signal.SIGINT)
            self._start("frontend")
        self._start(name)
        self._await_serving(say)

    # ---- stopping --------------------------------------------------------------------------------------------------

    def _stop(self, name: str, signum: int) -> None:
        """Let it end in order, then kill what is left of it."""
        process = self._processes.get(name)
        if process is None:
            return
        process.send_signal(signum)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_TERMINATION_S + (self._frontend_stops_within_s if name == "frontend" else 0))
        self._end(name)

    def _end(self, name: str) -> None:
        """Kill what runs of it and of what it has started."""
        kill_session(self._processes[name])
        self._processes[name].wait()
        if name == "triton":
            self._triton_files.remove()

    def _kill(self, _: int, __: FrameType | None) -> None:
        if time.monotonic() - self._stopped_at < _ONE_SIGNAL_S:
            return
        for process in self._processes.values():
            kill_session(process)

    def _last_lines(self, name: str) -> str:
        """The end of Triton's log, with what to do. Empty for the frontend, which writes to the terminal itself."""
        if name != "triton":
            return ""
        log = self._runtime_dir.triton_log
        end = last_lines(log.read_text(errors="replace"))
        return f"; the end of {log}:\n{end}{remedy(end)}"


def last_lines(log: str) -> str:
    """The last lines of Triton's log, indented, without its tables of settings."""
    lines = [line for line in log.splitlines() if line.strip() and not line.startswith(("|", "+-"))]
    return "\n".join(f"  {line[:300]}" for line in lines[-_LOG_TAIL_LINES:])


def engine_dir_of(arguments: Namespace) -> Path:
    """Where the engine of the chosen model is published."""
    return Path(arguments.model_repository / arguments.model / "1" / "engine")
