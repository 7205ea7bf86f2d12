"""SIGINT, SIGTERM and SIGHUP as the exception `Stop`, so that the server ends in order wherever it is."""

import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop(Exception):
    """One of SIGNALS has arrived."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class StopSignals:
    """The first of SIGNALS, from `install` on. Later ones are ignored."""

    def __init__(self) -> None:
        self._signum: int | None = None

    def install(self) -> None:
        """Take the signals. The first raises Stop in the main thread."""
        for signum in SIGNALS:
            signal.signal(signum, self._stop)

    def check(self) -> None:
        """Raise Stop if a signal has arrived. For loops: what a handler raises within a finalizer, Python drops."""
        if self._signum is not None:
            raise Stop(self._signum)

    def _stop(self, signum: int, _: FrameType | None) -> None:
        if self._signum is None:
            self._signum = signum
            raise Stop(signum)
