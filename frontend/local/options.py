"""The command line of `python -m frontend.local`. Imports no package: `make run` reads it before any is installed."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from build_engine.model_repository import MODEL_REPOSITORY

from .restarts import MAX_RESTARTS, PERIOD_S

SCRIPT = "mixtral-local"
"""The command that an installed wheel has for `python -m frontend.local`."""


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and those for the frontend. Exits on a wrong one."""
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
        "--shutdown-timeout-s", type=int, default=10, help="for running answers at the end (default: %(default)s)"
    )
    arguments, frontend_options = parser.parse_known_args(argv)
    arguments.runtime_dir = arguments.runtime_dir or Path(".cache/run", str(arguments.port))
    return arguments, frontend_options
