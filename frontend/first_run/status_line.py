"""What long work is at: one line that is written over on a terminal, a line every few seconds in a log."""

import shutil
import sys
import time

_LOG_INTERVAL_S = 2.5
_BAR_WIDTH = 24


class StatusLine:
    """Shows what was last given to `show`, on stderr."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._logged_at = time.monotonic()

    def show(self, text: str, share: float | None = None) -> None:
        """To be called often. `share` of the work that is done, 0 to 1, is drawn as a bar."""
        if self._is_terminal:
            bar = "" if share is None else f"[{'#' * round(share * _BAR_WIDTH):.<{_BAR_WIDTH}}] "
            self._write(f"\r\x1b[K{f'      {bar}{text}'[: shutil.get_terminal_size().columns - 1]}")
        elif time.monotonic() >= self._logged_at + _LOG_INTERVAL_S:
            self._log(text)

    def end(self, text: str) -> None:
        """A last line that stays."""
        self._write(f"\r\x1b[K      {text}\n" if self._is_terminal else f"      {text}\n")

    def clear(self) -> None:
        """Before something else is written."""
        if self._is_terminal:
            self._write("\r\x1b[K")

    def _log(self, text: str) -> None:
        self._logged_at = time.monotonic()
        self._write(f"      {text}\n")

    @staticmethod
    def _write(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
