"""The progress of a build: a bar on a terminal, plain lines elsewhere."""

import fcntl
import os
import pty
import re
import struct
import termios
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from build_engine import progress
from build_engine.checkpoint import open_checkpoint
from build_engine.mixtral import engine_bytes
from build_engine.openvino.weights import write_ir
from tests.build_engine.workplace import CheckpointDir, Repository, start

LINE = re.compile(r"weights: \d+ % of [\d.]+[kM]?B, [\d.]+[kMG]?B/s, \d+ s left")

SLOW = re.compile(r"weights: 0 % of 538kB, \d+ s|(chat template|guide checker|tokenizer), \d+ s")
"""What is said on a machine that has other things to do."""


@dataclass
class Clock:
    """What time.monotonic returns."""

    seconds: float = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time, at which the last line was written. The next one is due after two seconds."""
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.seconds)
    monkeypatch.setattr(progress._LogLines, "last_line_s", clock.seconds)
    monkeypatch.setattr(progress, "_LOG_INTERVAL_S", 2.0)
    return clock


def read_all(terminal: int) -> Iterator[bytes]:
    """What is written to a terminal until its last writer closes it; Linux reports that as an error."""
    while True:
        try:
            yield os.read(terminal, 4096)
        except OSError:
            return


def test_a_terminal_shows_a_bar(repository: Repository, checkpoint: CheckpointDir) -> None:
    terminal, its_program_side = pty.openpty()
    fcntl.ioctl(its_program_side, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    process = start(["-m", "build_engine", *repository.build(checkpoint)], stderr=its_program_side)
    os.close(its_program_side)
    shown = b"".join(read_all(terminal)).decode()
    os.close(terminal)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, f"published {repository.engine}\n")
    assert "\rweights: 100%|" in shown
    assert not LINE.search(shown)


def test_a_log_gets_plain_lines(repository: Repository, checkpoint: CheckpointDir) -> None:
    process = start(["-m", "build_engine", *repository.build(checkpoint)])
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, f"published {repository.engine}\n")
    *slow, last = [line for line in err.splitlines() if not SLOW.fullmatch(line)]
    assert LINE.fullmatch(last)
    assert last.startswith("weights: 100 % of 538kB")
    assert all(map(LINE.fullmatch, slow))


def test_a_log_gets_a_line_every_few_seconds_and_one_at_the_end(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    with progress.progress("weights", 10_000, "B") as advance:
        for _ in range(10):
            clock.seconds += 1.0
            advance(1000)
    assert capsys.readouterr().err.splitlines() == [
        "weights: 20 % of 10.0kB, 1.00kB/s, 8 s left",
        "weights: 40 % of 10.0kB, 1.00kB/s, 6 s left",
        "weights: 60 % of 10.0kB, 1.00kB/s, 4 s left",
        "weights: 80 % of 10.0kB, 1.00kB/s, 2 s left",
        "weights: 100 % of 10.0kB, 1.00kB/s, 0 s left",
    ]


def test_a_log_gets_a_line_while_one_piece_of_the_work_takes_long(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    with progress.progress("demo checkpoint", 30, " layers"):
        clock.seconds = 3.0
        lines = wait_for_a_line(capsys)
    assert lines == ["demo checkpoint: 0 % of 30 layers, 3 s"]


def test_a_log_says_for_how_long_work_without_a_known_end_lasts(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    with progress.working("tokenizer"):
        clock.seconds = 3.0
        lines = wait_for_a_line(capsys)
    assert lines == ["tokenizer, 3 s"]


def test_a_stage_goes_on_with_the_silence_of_the_one_before(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    with progress.working("guide checker"):
        clock.seconds = 1.5
    with progress.working("tokenizer"):
        clock.seconds = 2.0
        lines = wait_for_a_line(capsys)
    assert lines == ["tokenizer, 0 s"]


def wait_for_a_line(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines on stderr, as soon as there is one."""
    for _ in range(100):
        if lines := capsys.readouterr().err.splitlines():
            return lines
        threading.Event().wait(0.1)
    return []


def test_the_weights_that_are_announced_are_the_weights_that_are_written(
    repository: Repository, checkpoint: CheckpointDir
) -> None:
    written: list[int] = []
    opened = open_checkpoint(checkpoint.path)
    write_ir(opened, repository.version, written.append)
    assert sum(written) == engine_bytes(opened.config)
