"""What one Triton keeps outside of its own directory: regions in /dev/shm, and a directory in /tmp.

Its Python backend makes them for every user to read, and leaves them behind when it is killed.
"""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_SHM = Path("/dev/shm")
_TMP = Path("/tmp")
_ENVIRONMENTS = "python_env_??????"
"""One such directory for each server, for models with a Python environment of their own. Ours have none, so it stays
empty. The name is fixed in the backend's pb_env.cc."""

_CLOCK_TICK_S = 0.02
"""Times of files may lag behind the clock by a tick of the kernel."""


class TritonFiles:
    """To be made before the server is started. `shm_prefix` is how the names of its regions begin."""

    def __init__(self) -> None:
        self.shm_prefix = f"mixtral_{secrets.token_hex(8)}_"
        self._since = time.time()
        self._until = float("inf")

    def make_private(self) -> None:
        """Let only their own user read the regions. A umask does not: Boost, which makes them, sets their mode."""
        for region in self._regions():
            with suppress(FileNotFoundError):
                region.chmod(0o600)

    def are_complete(self) -> None:
        """The server is ready and makes no more of them: a directory in /tmp that is newer is another server's."""
        self.make_private()
        self._until = time.time()

    def remove(self) -> None:
        """To be called when the server has ended."""
        for region in self._regions():
            region.unlink(missing_ok=True)
        for directory in self._environments():
            with suppress(OSError):  # not empty, or already gone
                directory.rmdir()

    def _regions(self) -> Iterator[Path]:
        return _SHM.glob(f"{self.shm_prefix}*")

    def _environments(self) -> Iterator[Path]:
        """Those of this user that were made between the start of the server and its being ready."""
        for directory in _TMP.glob(_ENVIRONMENTS):
            with suppress(OSError):
                status = directory.stat()
                made_at = status.st_mtime
                if status.st_uid == os.geteuid() and self._since - _CLOCK_TICK_S <= made_at <= self._until:
                    yield directory
