"""A bound on the time in which values and names of a schema are matched against its patterns.

Python's `re` backtracks: `^(a+)+$` takes hours for forty letters. It looks for signals while it does. For the main
thread, as the worker's is.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors import InvalidConstraint

MAX_MATCHING_S = 1.0
"""Processor time. An enum of 12,000 strings beside a pattern takes 0.3 s."""


@contextmanager
def bounded_matching() -> Iterator[None]:
    """Raises InvalidConstraint where the block takes longer than MAX_MATCHING_S."""

    def stop(*_: Any) -> None:
        raise InvalidConstraint(
            f"takes more than {MAX_MATCHING_S:g} s to match its listed values and names against `pattern` and "
            "`patternProperties`"
        )

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, MAX_MATCHING_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
