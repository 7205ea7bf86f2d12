"""A signal ends the server wherever its main thread is, also where Python drops exceptions."""

import os
import signal
from collections.abc import Iterator

import pytest

from frontend.local.stop_signals import SIGNALS, Stop, StopSignals


@pytest.fixture
def stop_signals() -> Iterator[StopSignals]:
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    stop_signals = StopSignals()
    stop_signals.install()
    yield stop_signals
    for signum, handler in before.items():
        signal.signal(signum, handler)


class EndsInAFinalizer:
    """As an HTTP response does, which is closed when nothing refers to it any more."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):  # the handler runs between two steps of the interpreter
            pass


@pytest.mark.parametrize("signum", SIGNALS)
def test_the_first_signal_is_raised_and_later_ones_are_ignored(stop_signals: StopSignals, signum: int) -> None:
    stop_signals.check()
    with pytest.raises(Stop) as stop:
        os.kill(os.getpid(), signum)
    assert stop.value.signum == signum
    for later in SIGNALS:
        os.kill(os.getpid(), later)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_python_drops_is_raised_at_the_next_check(stop_signals: StopSignals) -> None:
    EndsInAFinalizer()
    with pytest.raises(Stop) as stop:
        stop_signals.check()
    assert stop.value.signum == signal.SIGINT
