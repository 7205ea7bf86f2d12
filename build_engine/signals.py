"""SIGINT and SIGTERM as an exception, so that every `finally` runs however a build is stopped. Main thread only."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeAlias

from .errors import BuildInterrupted

Handler: TypeAlias = Callable[[int, FrameType | None], None] | signal.Handlers

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside, both signals raise BuildInterrupted."""
    with _handled_by(_interrupt):
        yield


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Inside, both signals are ignored: for steps that must not end halfway."""
    with _handled_by(signal.SIG_IGN):
        yield


def _interrupt(signum: int, _: FrameType | None) -> None:
    raise BuildInterrupted(f"interrupted by {signal.Signals(signum).name}; nothing was published")


@contextmanager
def _handled_by(handler: Handler) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # Python runs handlers in no other
        yield
        return
    previous = {signum: signal.signal(signum, handler) for signum in _SIGNALS}
    try:
        yield
    finally:
        for signum, restored in previous.items():
            signal.signal(signum, restored)
