"""`python -m frontend.local`: Triton and the frontend on this machine, started and stopped together.

When either process ends, the other one is stopped. Both are stopped when a process that Triton started ends, because
Triton still reports the model as ready then. Not here: restarting, which is left to the caller (a terminal, systemd).
"""

import argparse
import json
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from build_engine.errors import RepositoryError
from build_engine.model_repository import MODEL_REPOSITORY, create_default
from frontend.engine_dir import read_engine_dir, served_names
from frontend.errors import StartupError
from frontend.settings import Settings

from .child_process import children_of, start_child
from .tritonserver import TritonSettings, TritonUnavailable, start_triton

SCRIPT = "mixtral-local"
"""The command that an installed wheel has for `python -m frontend.local`."""

_POLL_INTERVAL_S = 0.1

_ERROR_PERIOD_S = 2.0
"""How long the frontend still runs when Triton has ended: clients get their errors, and /health answers 503."""

_TERMINATION_S = 15.0
"""How long a process may take to stop before it is killed; longer than Triton's --exit-timeout-secs."""

_START_TIMEOUT_S = 300.0
_LOG_TAIL_LINES = 15
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop(Exception):
    """One of `_SIGNALS` has arrived."""


class Local:
    """The two processes, as a context manager: leaving it stops those that run, the frontend first."""

    def __init__(self, arguments: argparse.Namespace, frontend_options: Sequence[str]) -> None:
        self._arguments = arguments
        self._engine_dir = arguments.model_repository / arguments.model / "1" / "engine"
        self._frontend_argv = [*_frontend_argv(arguments, self._engine_dir), *frontend_options]
        self._log = arguments.runtime_dir / "triton.log"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._settings = Settings.from_args(self._frontend_argv, os.environ)  # exits on a wrong option
        host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        self.url = f"{'https' if self._settings.ssl_certfile else 'http'}://{host}:{arguments.port}"

    def __enter__(self) -> "Local":
        return self

    def __exit__(self, *_: object) -> None:
        for signum in _SIGNALS:
            signal.signal(signum, lambda *_: self._kill())  # a second Ctrl-C kills at once
        for name, process in reversed(self._processes.items()):
            process.terminate()
            try:
                process.wait(_TERMINATION_S + (self._arguments.shutdown_timeout_s if name == "frontend" else 0))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _kill(self) -> None:
        for process in self._processes.values():
            process.kill()

    def start(self) -> None:
        """Start both and wait until they are ready. Raises StartupError with the reason and the end of Triton's log."""
        arguments = self._arguments
        _check_port_free(arguments.host, arguments.port, "--port")
        _check_port_free("127.0.0.1", arguments.triton_port, "--triton-port")
        _check_port_free("127.0.0.1", arguments.metrics_port, "--metrics-port")
        if not (self._engine_dir / "manifest.json").exists():
            raise StartupError(
                f"{self._engine_dir} holds no engine;"
                f" build it with: python -m build_engine build --target {arguments.model}"
                f" --model-repository {arguments.model_repository} CHECKPOINT"
            )
        self._start_triton()
        self._start_frontend()  # which waits for Triton, and loads its tokenizer meanwhile
        self._await_serving()

    def banner(self) -> str:
        """Instructions how to call the API."""
        checkpoint_path = read_engine_dir(self._engine_dir).checkpoint_path
        model = served_names(self._settings.served_model_name, checkpoint_path)[0]
        needs_key = bool(self._settings.api_keys or self._settings.api_key_file)
        return _banner(self.url, model, needs_key=needs_key)

    def watch(self) -> str:
        """Wait until a process ends; returns a sentence with its name, its exit status and the end of Triton's log."""
        backends = [os.pidfd_open(pid) for pid in children_of(self._processes["triton"].pid)]
        while True:
            backend_ended, _, _ = select.select(backends, [], [], _POLL_INTERVAL_S)
            for name, process in self._processes.items():
                if process.poll() is not None:
                    if name == "triton":
                        time.sleep(_ERROR_PERIOD_S)
                    return f"{name} ended with status {process.returncode}{self._last_lines(name)}"
            if backend_ended:
                self._processes["triton"].kill()  # it would answer each request with an error, after a second
                time.sleep(_ERROR_PERIOD_S)
                return f"triton's backend process ended{self._last_lines('triton')}"

    def _start_triton(self) -> None:
        arguments = self._arguments
        self._log.parent.mkdir(parents=True, exist_ok=True)
        settings = TritonSettings(
            model_repository=arguments.model_repository,
            model=arguments.model,
            http_port=arguments.triton_port,
            metrics_port=arguments.metrics_port,
            runtime_dir=arguments.runtime_dir,
        )
        try:
            with self._log.open("wb") as log:
                self._processes["triton"] = start_triton(settings, log)
        except TritonUnavailable as exc:
            raise StartupError(str(exc)) from exc

    def _start_frontend(self) -> None:
        # Without this, transformers warns that PyTorch is missing, which is intended.
        environment = {**os.environ, "TRANSFORMERS_VERBOSITY": "error"}
        command = [sys.executable, "-m", "frontend", *self._frontend_argv]
        self._processes["frontend"] = start_child(command, environment=environment)

    def _await_serving(self) -> None:
        """The frontend is healthy once Triton has the model ready."""
        while not _answers(f"{self.url}/health"):
            for name, process in self._processes.items():
                if process.poll() is not None:
                    end = f"{name} ended with status {process.returncode} while starting"
                    raise StartupError(end + self._last_lines(name))
            time.sleep(_POLL_INTERVAL_S)

    def _last_lines(self, name: str) -> str:
        """The end of Triton's log. Empty for the frontend, which writes to the terminal itself."""
        if name != "triton":
            return ""
        lines = self._log.read_text(errors="replace").splitlines()
        tail = "\n".join(f"  {line[:300]}" for line in lines[-_LOG_TAIL_LINES:] if line.strip())
        return f"; the end of {self._log}:\n{tail}"


def _frontend_argv(arguments: argparse.Namespace, engine_dir: Path) -> list[str]:
    options = {
        "--engine-dir": engine_dir,
        "--model": arguments.model,
        "--triton-url": f"http://127.0.0.1:{arguments.triton_port}",
        "--triton-metrics-url": f"http://127.0.0.1:{arguments.metrics_port}/metrics",
        "--host": arguments.host,
        "--port": arguments.port,
        "--shutdown-timeout-s": arguments.shutdown_timeout_s,
        "--startup-timeout-s": _START_TIMEOUT_S,
    }
    return [str(part) for option in options.items() for part in option]


def _check_port_free(host: str, port: int, option: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as exc:  # OverflowError: not a port number
            reason = getattr(exc, "strerror", None) or exc
            raise StartupError(f"cannot listen on {host}:{port} ({reason}); choose another with {option}") from exc


def _answers(url: str) -> bool:
    unverified = ssl.create_default_context()
    unverified.check_hostname = False  # the certificate is for clients; this is our own process on this machine
    unverified.verify_mode = ssl.CERT_NONE
    try:
        with urllib.request.urlopen(url, timeout=2, context=unverified) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _banner(url: str, model: str, *, needs_key: bool) -> str:
    key, header = ("YOUR_KEY", ' -H "Authorization: Bearer YOUR_KEY"') if needs_key else ("none", "")
    body = {"model": model, "messages": [{"role": "user", "content": "What is a house?"}], "temperature": 0}
    return f"""
Serving {model}
  {url}/v1/chat/completions    OpenAI chat API; its documentation is at {url}/docs

With curl:

curl {url}/v1/chat/completions -H "Content-Type: application/json"{header} -d '{json.dumps(body)}'

With Python (pip install openai):

from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key="{key}")
messages = [{{"role": "user", "content": "What is a house?"}}]
for chunk in client.chat.completions.create(model="{model}", messages=messages, max_tokens=100, stream=True):
    print(chunk.choices[0].delta.content or "", end="", flush=True)

Stop with Ctrl-C.
"""


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog=SCRIPT if Path(sys.argv[0]).name == SCRIPT else "python -m frontend.local",
        description="Run Triton and the frontend together on this machine.",
        epilog="Further options go to the frontend: see python -m frontend --help.",
    )
    parser.add_argument("--model-repository", type=Path, default=MODEL_REPOSITORY, help="default: %(default)s")
    parser.add_argument("--model", default="openvino", help="the Triton model to load (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address of the API (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port of the API (default: %(default)s)")
    parser.add_argument("--triton-port", type=int, default=8001, help="on loopback (default: %(default)s)")
    parser.add_argument("--metrics-port", type=int, default=8002, help="Triton's, on loopback (default: %(default)s)")
    parser.add_argument("--runtime-dir", type=Path, default=Path(".cache/run"), help="logs (default: %(default)s)")
    parser.add_argument(
        "--shutdown-timeout-s", type=int, default=10, help="for running answers, after Ctrl-C (default: %(default)s)"
    )
    return parser.parse_known_args(argv)


def _raise_stop(signum: int, _: FrameType | None) -> None:
    raise Stop


def main() -> int:
    """Exit status: 0 after one of `_SIGNALS`, 1 when a process could not start or ended by itself."""
    arguments, frontend_options = _parse(sys.argv[1:])
    for signum in _SIGNALS:
        signal.signal(signum, _raise_stop)
    try:
        with Local(arguments, frontend_options) as local:
            if create_default(arguments.model_repository):
                _print(f"local: created {arguments.model_repository}; each config.pbtxt there is yours to edit")
            local.start()
            _print(local.banner())
            _print(f"local: {local.watch()}")
            return 1
    except Stop:
        return 0
    except (StartupError, RepositoryError) as exc:
        _print(f"local: {exc}")
        return 1


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
