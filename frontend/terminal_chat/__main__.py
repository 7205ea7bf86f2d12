"""`python -m frontend.terminal_chat`: the command line."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from .api import Api, ApiError
from .chat import Chat
from .conversation import Conversation
from .terminal import Pipes, Screen

SCRIPT = "mixtral-chat"
"""The command that an installed wheel has for `python -m frontend.terminal_chat`."""

KEY_VARIABLE = "API_KEY"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=SCRIPT if Path(sys.argv[0]).name == SCRIPT else "python -m frontend.terminal_chat",
        description="Chat in the terminal. With a pipe as input, each line of it is a message.",
        epilog=f"An API key is read from the variable {KEY_VARIABLE}, or asked for. /help lists the commands.",
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the server (default: %(default)s)")
    parser.add_argument("--model", help="default: the server's first")
    parser.add_argument("--system", default="", metavar="TEXT", help="a system prompt")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_parameter,
        metavar="NAME=VALUE",
        help="a parameter of the API, such as temperature=0.2 or max_tokens=200; may be repeated",
    )
    return parser


def _parameter(text: str) -> tuple[str, Any]:
    name, found, value = text.partition("=")
    if not found or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 if all was answered, 1 if something was not, 130 after Ctrl-C without a terminal."""
    arguments = _parser().parse_args(argv)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
    terminal = Screen() if sys.stdin.isatty() and sys.stdout.isatty() else Pipes()
    try:
        with closing(Api(arguments.url, os.environ.get(KEY_VARIABLE, ""))) as api:
            model = arguments.model or _first_model(api, terminal)
            terminal.remark(f"{model} at {arguments.url}; /help lists the commands")
            chat = Chat(api, terminal, model, Conversation(arguments.system), dict(arguments.set))
            return 0 if chat.run() else 1
    except ApiError as error:
        terminal.remark(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


def _first_model(api: Api, terminal: Pipes) -> str:
    """Asks for a key where the server asks for one."""
    try:
        return api.models()[0]
    except ApiError as error:
        key = terminal.ask_key() if error.status == 401 else ""
        if not key:
            raise
    api.set_key(key)
    return api.models()[0]


if __name__ == "__main__":
    sys.exit(main())
