"""A program on a terminal, with a person who types and reads."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[3]
WITHIN_S = 20.0
"""For one step, on a machine whose cores others use too."""

PROMPT = ">"
CTRL_C, CTRL_D, ENTER, ALT_ENTER = "\x03", "\x04", "\r", "\x1b\r"
_CONTROL_SEQUENCE = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[()][A-Z0-9]|[=>])")


class Typed:
    """`screen` is what was shown so far, without the sequences that move the cursor or set colours."""

    def __init__(self, process: "subprocess.Popen[bytes]", terminal: int) -> None:
        self.process = process
        self._terminal = terminal
        self.screen = ""
        self._read_to = 0

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._terminal, text.encode())

    def say(self, text: str) -> None:
        """Type a line, at the prompt."""
        self.read_to(PROMPT)
        self.type(text + ENTER)

    def read_to(self, expected: str) -> str:
        """Wait for a text that was not read yet. Returns what came before it."""
        give_up = time.monotonic() + WITHIN_S
        while (found := self.screen.find(expected, self._read_to)) < 0:
            assert self._read(give_up), f"waited for {expected!r} behind: {self.screen[self._read_to :]!r}"
        before, self._read_to = self.screen[self._read_to : found], found + len(expected)
        return before

    def ends(self) -> int:
        """Wait for the end of the program. Returns its exit status."""
        give_up = time.monotonic() + WITHIN_S
        while self._read(give_up):
            pass
        return self.process.wait(WITHIN_S)

    def _read(self, give_up: float) -> bool:
        """Whether something came until then, by the monotonic clock, and before the program closed the terminal."""
        if not select.select([self._terminal], [], [], max(give_up - time.monotonic(), 0))[0]:
            return False
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # Linux: its last writer has closed it
            return False
        self.screen += _CONTROL_SEQUENCE.sub("", data.decode(errors="replace")).replace("\r\n", "\n")
        return bool(data)


@contextmanager
def typing(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[Typed]:
    """Start `python -m ...` on a terminal of 100 columns. What still runs at the end is killed."""
    terminal, its_side = pty.openpty()
    fcntl.ioctl(its_side, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    # A real terminal answers when it is asked where the cursor is.
    variables = {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", **(environment or {})}
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=variables,
        stdin=its_side,
        stdout=its_side,
        stderr=its_side,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(its_side)
    try:
        yield Typed(process, terminal)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        os.close(terminal)
