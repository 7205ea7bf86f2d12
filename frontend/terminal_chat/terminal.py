"""Where lines come from and answers go to: a person at a terminal, or pipes."""

import sys
from collections.abc import Iterator

from prompt_toolkit import PromptSession
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.shortcuts import prompt

from .printable import printable

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


class Pipes:
    """Each line of stdin is a message or a command. Answers go to stdout, everything else to stderr."""

    is_interactive = False

    def lines(self) -> Iterator[str]:
        """Until the input ends."""
        yield from sys.stdin

    def ask_key(self) -> str:
        """Empty: there is no terminal to ask at."""
        return ""

    def write(self, text: str) -> None:
        """A part of an answer."""
        sys.stdout.write(printable(text))
        sys.stdout.flush()

    def remark(self, text: str) -> None:
        """A line about it."""
        sys.stderr.write(f"{printable(text)}\n")


class Screen(Pipes):
    """A terminal, with a line editor. Ctrl-C clears the line, Ctrl-D ends."""

    is_interactive = True

    def __init__(self) -> None:
        keys = KeyBindings()
        keys.add("escape", "enter")(_insert_line_break)
        self._session: PromptSession[str] = PromptSession(key_bindings=keys)

    def lines(self) -> Iterator[str]:
        """Until Ctrl-D."""
        while True:
            try:
                yield self._session.prompt("> ")
            except KeyboardInterrupt:
                self.remark("/quit or Ctrl-D ends")
            except EOFError:
                return

    def ask_key(self) -> str:
        """An API key, which is not shown. Empty if none is given."""
        try:
            return prompt("API key: ", is_password=True).strip()
        except (KeyboardInterrupt, EOFError):
            return ""

    def remark(self, text: str) -> None:
        """A dim line, where the answers are."""
        sys.stdout.write(f"{_DIM}{printable(text)}{_PLAIN}\n")
        sys.stdout.flush()


def _insert_line_break(event: KeyPressEvent) -> None:
    event.current_buffer.insert_text("\n")
