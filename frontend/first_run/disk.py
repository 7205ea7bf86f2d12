"""Where this checkout lies, and how much room is there."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_MB = 10**6
_UNPACKED_BYTES = 300 * _MB
"""What pip keeps in the directory for temporary files at once: the wheel that it downloads."""

_SHM_BYTES = 16 * _MB
"""What Triton's Python backend shares with the model, with room to spare."""


def problems(needed_bytes: int, *, packages: bool) -> Iterator[str]:
    """What is wrong if `needed_bytes` are to be written here. `packages` is whether some of them are installed."""
    checkout = Path.cwd()
    if os.pathsep in str(checkout):
        yield f"path: {checkout} has a colon in it, which PATH cannot hold; move this checkout to another directory"
    if not os.access(checkout, os.W_OK):
        yield f"path: {checkout} cannot be written by this user; make a checkout of your own"
    yield from _too_small(checkout, needed_bytes, "remove files there, or move this checkout to a larger disk")
    if packages:
        remedy = "remove files there, or name another directory: TMPDIR=/path make ..."
        yield from _too_small(Path(tempfile.gettempdir()), _UNPACKED_BYTES, remedy)
    yield from _too_small(Path("/dev/shm"), _SHM_BYTES, "make it larger, in Docker with --shm-size")


def _too_small(directory: Path, needed_bytes: int, remedy: str) -> Iterator[str]:
    try:
        free = shutil.disk_usage(directory).free
    except OSError as error:
        yield f"disk: {directory} cannot be read ({error.strerror}); {remedy}"
        return
    if free < needed_bytes:
        yield f"disk: {directory} has {free // _MB} MB left, {needed_bytes // _MB} MB are needed; {remedy}"
