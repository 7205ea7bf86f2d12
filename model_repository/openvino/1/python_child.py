"""How processes of our own are started: guide_trial.py and scorer.py, which may crash or be killed without harm."""

import os
import sys
from pathlib import Path


def command_of(script: str, *arguments: str) -> list[str]:
    """Of a script in this directory.

    By the first python3 on the PATH: this process, which Triton starts, embeds Python and has no program of its own.
    """
    return ["python3", str(Path(__file__).with_name(script)), *arguments]


def environment_with(**variables: str) -> dict[str, str]:
    """This process's, with the packages that it imports from, and `variables`."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **variables}
