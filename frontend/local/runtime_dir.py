"""The directory of one running instance: Triton's log, its backends, and the header that its port asks for."""

import fcntl
import os
from pathlib import Path
from typing import TextIO

from frontend.errors import StartupError
from frontend.settings import TRITON_KEY_HEADER


class RuntimeDir:
    """Made and locked when this is created, and unlocked when this process ends. Only its own user can read the files.

    Raises StartupError if another instance has it.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.triton_log = path / "triton.log"
        self._header = path / "triton.header"
        self._lock = (path / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            self._lock.close()
            raise StartupError(f"{path} is used by another instance; choose another with --runtime-dir") from exc

    def write_triton_key(self, key: str) -> None:
        """For `curl -H @FILE` of an operator."""
        with open_private(self._header) as file:
            file.write(f"{TRITON_KEY_HEADER}: {key}\n")

    def close(self) -> None:
        """The key is of no use any more."""
        self._header.unlink(missing_ok=True)
        self._lock.close()


def open_private(path: Path) -> TextIO:
    """An empty file that only its own user can read, also where it was there before."""
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w")
