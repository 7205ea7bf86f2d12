"""What every process of the frontend does around its event loop: signals, the log, memory, and the exit code."""

import os
import signal
import sys
from collections.abc import Coroutine
from types import FrameType
from typing import Any

import uvloop

from frontend.server.log import set_up_logging

from .errors import StartupError
from .malloc import give_memory_back
from .settings import Settings


def run(settings: Settings, serving: Coroutine[Any, Any, None]) -> int:
    """Run it in an event loop. The exit code: 0 after a signal, 1 and one line on stderr after StartupError."""
    # Until the server has handlers of its own. The first process of a container would ignore SIGTERM without one.
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, _end_at_once)
    give_memory_back()
    set_up_logging(settings.log_level, settings.log_format)
    try:
        uvloop.run(serving)
    except StartupError as exc:
        print(f"frontend: {exc}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _end_at_once(_: int, __: FrameType | None) -> None:
    """Nothing runs that must end in order. An exception would meet the event loop half started."""
    os._exit(0)
