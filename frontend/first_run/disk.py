"""Where this checkout lies, and how much room is there."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

_MB = 10**6
_UNPACKED_BYTES = 60 * _MB
"""What pip keeps in the directory for temporary files at once: the wheels of uv and pip."""

_CACHE_BYTES = 900 * _MB
"""What uv keeps in its cache; where that is on the same file system, .venv has links to it."""

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


def uv_cache(environment: Mapping[str, str]) -> Path:
    """The directory in which uv keeps what it downloads, for the next checkout too, if it can write there.

    Otherwise, and where there is too little room, it is one of this checkout's.
    """
    home = Path(environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME", "/nonexistent"), ".cache"))
    cache = Path(environment.get("UV_CACHE_DIR") or home / "uv")
    existing = next(place for place in (cache, *cache.absolute().parents) if place.exists())
    if os.access(existing, os.W_OK) and shutil.disk_usage(existing).free >= _CACHE_BYTES:
        return cache
    return Path(".cache", "uv")


def _too_small(directory: Path, needed_bytes: int, remedy: str) -> Iterator[str]:
    try:
        free = shutil.disk_usage(directory).free
    except OSError as error:
        yield f"disk: {directory} cannot be read ({error.strerror}); {remedy}"
        return
    if free < needed_bytes:
        yield f"disk: {directory} has {free // _MB} MB left, {needed_bytes // _MB} MB are needed; {remedy}"
