"""Show the progress of long work: a bar with rate and time left on a terminal, plain lines in a log.

Something is shown every few seconds, also where one piece of the work takes longer.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import ClassVar, TypeVar

from tqdm import tqdm

T = TypeVar("T")

_LOG_INTERVAL_S = 2.0
_TICK_S = 0.5


@contextmanager
def progress(what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with each advance, in units; `unit` is printed after numbers: "B", " layers"."""
    if sys.stderr.isatty():
        with (
            tqdm(total=total, desc=what, unit=unit, unit_scale=True, dynamic_ncols=True) as bar,
            _every_tick(bar.refresh),
        ):
            yield lambda amount: _discard(bar.update(amount))
    else:
        lines = _LogLines(what, total, unit)
        with _every_tick(lines.write_if_due):
            yield lines.advance


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show for how long the block has been at `what`, where it cannot be said how much is left."""
    if sys.stderr.isatty():
        with (
            tqdm(desc=what, bar_format="{desc}, {elapsed}", leave=False, dynamic_ncols=True) as bar,
            _every_tick(bar.refresh),
        ):
            yield
    else:
        lines = _LogLines(what, 0, "")
        with _every_tick(lines.write_if_due):
            yield


def track(items: Iterable[T], what: str, unit: str) -> Iterator[T]:
    """Yield the items, and show how many of them are done."""
    whole = list(items)
    with progress(what, len(whole), unit) as advance:
        for item in whole:
            yield item
            advance(1)


def _discard(_: object) -> None:
    """Drop what tqdm's methods return."""


@contextmanager
def _every_tick(call: Callable[[], None]) -> Iterator[None]:
    """Call it in a thread, every half second until the end of the block."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(_TICK_S):
            call()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class _LogLines:
    """A line every _LOG_INTERVAL_S, and one when all of `total` is done, which is 0 if it is not known."""

    last_line_s: ClassVar[float] = time.monotonic() - time.process_time()
    """When the latest line was written, of this work or of another; at first, about when this process began."""

    def __init__(self, what: str, total: int, unit: str) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._started = time.monotonic()
        self._done = 0
        self._lock = threading.Lock()

    def advance(self, amount: int) -> None:
        with self._lock:
            self._done += amount
            is_last = self._done >= self._total
        self.write_if_due(is_last=is_last)

    def write_if_due(self, *, is_last: bool = False) -> None:
        with self._lock:
            now = time.monotonic()
            if now - _LogLines.last_line_s >= _LOG_INTERVAL_S or is_last:
                _LogLines.last_line_s = now
                sys.stderr.write(f"{self._line(now - self._started)}\n")

    def _line(self, elapsed_s: float) -> str:
        if not self._total:
            return f"{self._what}, {elapsed_s:.0f} s"
        line = f"{self._what}: {100 * self._done // self._total} % of {_amount(self._total)}{self._unit}"
        if not self._done:
            return f"{line}, {elapsed_s:.0f} s"
        rate = self._done / max(elapsed_s, 1e-9)
        return f"{line}, {_amount(rate)}{self._unit}/s, {max(self._total - self._done, 0) / rate:.0f} s left"


def _amount(number: float) -> str:
    """Short: 30, 0.14, 471M."""
    return f"{number:.2g}" if number < 100 else str(tqdm.format_sizeof(number))
