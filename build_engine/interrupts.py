"""Turn the signals that stop a build into an exception, so that every `finally` runs."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .errors import BuildInterrupted


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM raise BuildInterrupted in here. May be nested; in a thread it changes nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signum: int, _: FrameType | None) -> None:
        raise BuildInterrupted(f"interrupted by {signal.Signals(signum).name}; nothing was published")

    previous = {signum: signal.signal(signum, interrupt) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
