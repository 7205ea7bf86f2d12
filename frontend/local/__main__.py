"""`python -m frontend.local`: Triton and the frontend on this machine, started and stopped together.

The command line and what is printed; supervisor.py has the processes.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from build_engine.errors import RepositoryError
from build_engine.model_repository import MODEL_REPOSITORY, create_default
from frontend.engine_dir import read_engine_dir, served_names
from frontend.errors import StartupError
from frontend.settings import Settings

from .restarts import MAX_RESTARTS, PERIOD_S
from .supervisor import SIGNALS, START_TIMEOUT_S, Ended, Supervisor, engine_dir_of

SCRIPT = "mixtral-local"
"""The command that an installed wheel has for `python -m frontend.local`."""


class Stop(Exception):
    """One of SIGNALS has arrived."""


def _frontend_options(arguments: argparse.Namespace) -> list[str]:
    options = {
        "--engine-dir": engine_dir_of(arguments),
        "--model": arguments.model,
        "--host": arguments.host,
        "--port": arguments.port,
        "--shutdown-timeout-s": arguments.shutdown_timeout_s,
        "--startup-timeout-s": START_TIMEOUT_S,
    }
    return [str(part) for option in options.items() for part in option]


def _url(host: str, port: int, settings: Settings) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"{'https' if settings.ssl_certfile else 'http'}://{name}:{port}"


def _instructions(url: str, engine_dir: Path, settings: Settings) -> str:
    """How to call the API."""
    model = served_names(settings.served_model_name, read_engine_dir(engine_dir).checkpoint_path)[0]
    return _banner(url, model, needs_key=bool(settings.api_keys or settings.api_key_file))


def _banner(url: str, model: str, *, needs_key: bool) -> str:
    key, header = ("YOUR_KEY", ' -H "Authorization: Bearer YOUR_KEY"') if needs_key else ("none", "")
    body = {"model": model, "messages": [{"role": "user", "content": "What is a house?"}], "temperature": 0}
    return f"""
Serving {model}
  {url}/    a chat page; {url}/status is for operators (unless --no-pages)
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
    parser.add_argument("--triton-port", type=int, default=0, help="on loopback (default: a free one)")
    parser.add_argument("--metrics-port", type=int, default=0, help="Triton's, on loopback (default: a free one)")
    parser.add_argument("--runtime-dir", type=Path, help="Triton's log and key (default: .cache/run/PORT)")
    parser.add_argument(
        "--restart",
        action="store_true",
        help=f"start again what ends or hangs, at most {MAX_RESTARTS} times in {PERIOD_S / 60:.0f} minutes",
    )
    parser.add_argument(
        "--shutdown-timeout-s", type=int, default=10, help="for running answers, after Ctrl-C (default: %(default)s)"
    )
    arguments, frontend_options = parser.parse_known_args(argv)
    arguments.runtime_dir = arguments.runtime_dir or Path(".cache/run", str(arguments.port))
    return arguments, frontend_options


def _raise_stop(signum: int, _: FrameType | None) -> None:
    raise Stop


def main() -> int:
    """Exit status: 0 after one of SIGNALS, 1 when a process could not start or ended by itself."""
    arguments, more_options = _parse(sys.argv[1:])
    frontend_options = [*_frontend_options(arguments), *more_options]
    settings = Settings.from_args(frontend_options, os.environ)  # exits on a wrong option
    url = _url(arguments.host, arguments.port, settings)
    for signum in SIGNALS:
        signal.signal(signum, _raise_stop)
    try:
        with Supervisor(arguments, frontend_options, url) as supervisor:
            if create_default(arguments.model_repository):
                _print(f"local: created {arguments.model_repository}; each config.pbtxt there is yours to edit")
            supervisor.start()
            _print(_instructions(url, engine_dir_of(arguments), settings))
            supervisor.serve(lambda text: _print(f"local: {text}"))
    except Stop:
        return 0
    except (StartupError, RepositoryError, Ended) as exc:
        _print(f"local: {exc}")
        return 1


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
