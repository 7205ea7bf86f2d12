"""`python -m frontend.local`: Triton and the frontend on this machine, started and stopped together.

What is printed; options.py has the command line, supervisor.py the processes.
"""

import json
import os
import sys
from argparse import Namespace
from pathlib import Path

from build_engine.errors import RepositoryError
from build_engine.model_repository import create_default
from frontend.engine_dir import read_engine_dir, served_names
from frontend.errors import StartupError
from frontend.settings import Settings

from .options import parse
from .stop_signals import Stop, StopSignals
from .supervisor import START_TIMEOUT_S, Ended, Supervisor, engine_dir_of


def _frontend_options(arguments: Namespace) -> list[str]:
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
    files = read_engine_dir(engine_dir, settings.chat_template)
    model = served_names(settings.served_model_name, files.checkpoint_path)[0]
    return _banner(url, model, files.note, needs_key=bool(settings.api_keys or settings.api_key_file))


def _banner(url: str, model: str, note: str, *, needs_key: bool) -> str:
    key, header = ("YOUR_KEY", ' -H "Authorization: Bearer YOUR_KEY"') if needs_key else ("none", "")
    about = f"\n  {note}" if note else ""
    body = {"model": model, "messages": [{"role": "user", "content": "What is a house?"}], "temperature": 0}
    return f"""
Serving {model}{about}
  {url}/    a chat page; {url}/status is for operators (unless --no-pages)
  {url}/v1/chat/completions    OpenAI chat API; its documentation is at {url}/docs

In a terminal: make chat URL={url}

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


def main() -> int:
    """Exit status: 0 after one of SIGNALS, 1 when a process could not start or ended by itself."""
    arguments, more_options = parse(sys.argv[1:])
    frontend_options = [*_frontend_options(arguments), *more_options]
    settings = Settings.from_args(frontend_options, os.environ)  # exits on a wrong option
    url = _url(arguments.host, arguments.port, settings)
    stop_signals = StopSignals()
    stop_signals.install()
    try:
        stops_within_s = settings.drain_seconds + settings.shutdown_timeout_s
        with Supervisor(arguments, frontend_options, url, stops_within_s, stop_signals) as supervisor:
            if create_default(arguments.model_repository):
                _say(f"created {arguments.model_repository}; each config.pbtxt there is yours to edit")
            supervisor.start(_say)
            _print(_instructions(url, engine_dir_of(arguments), settings))
            supervisor.serve(_say)
    except Stop:
        return 0
    except (StartupError, RepositoryError, Ended) as exc:
        _say(str(exc))
        return 1


def _say(text: str) -> None:
    _print(f"local: {text}")


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
