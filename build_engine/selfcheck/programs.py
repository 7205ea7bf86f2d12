"""Run NVIDIA's programs, and scripts in NVIDIA's Python, for what they print."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

from build_engine.errors import HostError

from .report import NotKnown

_TIMEOUT_S = 600.0
"""Importing TensorRT-LLM from a cold disk takes minutes."""


def output_of(command: Sequence[str]) -> str:
    """stdout, then stderr, whatever the exit status: tritonserver writes its help to stderr, with status 1.

    Raises NotKnown if there is no such program, HostError if it does not end in time.
    """
    done = _run(command)
    return done.stdout + done.stderr


def run_script(python: str, script: str, arguments: object) -> Any:
    """The JSON that a script prints last. It gets `arguments` as JSON in sys.argv[1].

    Raises NotKnown if there is no such Python, HostError with the last line of its error if the script fails.
    """
    done = _run([python, "-c", script, json.dumps(arguments)])
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
        raise HostError(f"status {done.returncode}: {''.join(last) or 'no message'}")
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise HostError(f"the script printed no JSON ({error})") from error


def _run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    if shutil.which(command[0]) is None:
        raise NotKnown(f"{command[0]} is not installed here")
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except OSError as error:
        raise HostError(f"{command[0]} cannot be started ({error.strerror})") from error
    except subprocess.TimeoutExpired as error:
        raise HostError(f"{command[0]} did not end within {_TIMEOUT_S:.0f} s") from error
