"""What Triton is at while it starts, from its log, for the terminal."""

import re
import time
from collections.abc import Callable
from pathlib import Path

_INTERVAL_S = 2.0
_LOST_AFTER_S = 3.0

_STARTS_PROCESS = re.compile("python_be.cc.*TRITONBACKEND_ModelInstanceInitialize")
"""Triton's Python backend starts a process for the model. If that fails, it waits for it all the same."""

_STAGES = (
    ("successfully loaded", "Triton has loaded the engine; the frontend starts"),
    ("loading: ", "Triton loads the engine"),
)
"""The last of Triton's messages that its log has, latest first, and what it is at then."""


_REMEDIES = (
    (
        "is not healthy",
        "the engine's process ended, most often for want of memory: end other programs, or raise the limit of this"
        " container or machine",
    ),
)
"""For messages of Triton's that do not say what to do."""


class Starting:
    """Says what Triton is at and for how long, every few seconds, as long as `tick` is called."""

    def __init__(
        self, triton_log: Path, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = triton_log
        self._say = say
        self._clock = clock
        self._started = self._said_at = self._alive_at = clock()

    def tick(self) -> None:
        """To be called often."""
        now = self._clock()
        if now >= self._said_at + _INTERVAL_S:
            self._said_at = now
            self._say(f"{stage(self._log.read_text(errors='replace'))}, {now - self._started:.0f} s")

    def has_no_backend(self, children: Callable[[], list[int]]) -> bool:
        """Whether the model's process should have run for some seconds, and Triton has none of its own."""
        now = self._clock()
        if now < self._alive_at + _LOST_AFTER_S:
            return False
        if _STARTS_PROCESS.search(self._log.read_text(errors="replace")) and not children():
            return True
        self._alive_at = now
        return False


def stage(log: str) -> str:
    """What a Triton with this log is at."""
    return next((stage for message, stage in _STAGES if message in log), "Triton starts")


def remedy(log: str) -> str:
    """What to do about the end of a Triton with this log, as a line of its own. Empty if that is not known."""
    return next((f"\n{remedy}" for message, remedy in _REMEDIES if message in log), "")
