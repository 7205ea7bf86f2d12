"""Show the progress of long work: a bar with rate and time left on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

_LOG_INTERVAL_S = 5.0


@contextmanager
def progress(what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with each advance, in units; `unit` is printed after numbers: "B", " layers"."""
    if sys.stderr.isatty():
        with tqdm(total=total, desc=what, unit=unit, unit_scale=True, dynamic_ncols=True) as bar:
            yield lambda amount: _discard(bar.update(amount))
    else:
        yield _log_lines(what, total, unit)


def track(items: Iterable[T], what: str, unit: str) -> Iterator[T]:
    """Yield the items, and show how many of them are done."""
    whole = list(items)
    with progress(what, len(whole), unit) as advance:
        for item in whole:
            yield item
            advance(1)


def _discard(_: object) -> None:
    """Drop what tqdm's update returns."""


def _log_lines(what: str, total: int, unit: str) -> Callable[[int], None]:
    started = last_line = time.monotonic()
    done = 0

    def advance(amount: int) -> None:
        nonlocal done, last_line
        done += amount
        now = time.monotonic()
        if now - last_line < _LOG_INTERVAL_S and done < total:
            return
        last_line = now
        rate = done / max(now - started, 1e-9)
        left_s = max(total - done, 0) / rate if rate else 0.0
        line = f"{what}: {100 * done // max(total, 1)} % of {_amount(total)}{unit}"
        sys.stderr.write(f"{line}, {_amount(rate)}{unit}/s, {left_s:.0f} s left\n")

    return advance


def _amount(number: float) -> str:
    """Short: 30, 0.14, 471M."""
    return f"{number:.2g}" if number < 100 else str(tqdm.format_sizeof(number))
