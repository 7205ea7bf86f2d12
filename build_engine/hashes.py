"""The SHA-256 of files. A large file is not read again while the file system says that it is the same.

Large files are remembered beside the engine; removing that file costs a new hash. A small file is hashed each time: it
could be written twice within one tick of the file system's clock.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from .progress import progress
from .regular_file import MIB, FileState, open_regular, state_of

REMEMBERED_BYTES = 64 * MIB
"""Files of at least this size are remembered."""
_MOST_REMEMBERED = 256
"""Of as many files at most. A checkpoint of Mixtral and two engines have some 30."""
_CHUNK_BYTES = 4 * MIB


class Hashes:
    """Hashes as they are asked for, in hexadecimal. Known by a file's name and state: a directory may be renamed."""

    def __init__(self) -> None:
        self._remembered: dict[tuple[str, FileState], str] = {}
        self._used: dict[tuple[str, FileState], str] = {}

    def of(self, file: Path) -> str:
        """The SHA-256 of a regular file. Raises OSError, also for anything else."""
        state = state_of(file)
        if state.size < REMEMBERED_BYTES:
            return _sha256(file)
        key = file.name, state
        if key not in self._used:
            self._used[key] = self._remembered.get(key) or _sha256_of_large(file, state.size)
        return self._used[key]

    def load(self, file: Path) -> None:
        """Remember what `save` wrote. Nothing if it cannot be read."""
        with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            self._remembered = {
                (str(entry["name"]), FileState(**entry["state"])): str(entry["sha256"])
                for entry in json.loads(file.read_bytes())
            }

    def save(self, file: Path) -> None:
        """Write what was asked for, after what was found by `load`; nothing new, or a full disk, writes nothing.

        So a build remembers the engine that is kept, and a rollback the checkpoint.
        """
        if self._used.items() <= self._remembered.items():
            return
        unused = {key: digest for key, digest in self._remembered.items() if key not in self._used}
        kept = list({**unused, **self._used}.items())[-_MOST_REMEMBERED:]
        entries = [{"name": name, "state": asdict(state), "sha256": digest} for (name, state), digest in kept]
        partial = file.with_name(f"{file.name}.partial")
        with suppress(OSError):
            partial.write_text(json.dumps(entries, indent=2) + "\n")
            partial.replace(file)


@contextmanager
def remembered_hashes(engine_dir: Path) -> Iterator[Hashes]:
    """Hashes that are remembered beside an engine's directory, however the block ends."""
    file = engine_dir.with_name(f".{engine_dir.name}.hashes.json")
    hashes = Hashes()
    hashes.load(file)
    try:
        yield hashes
    finally:
        hashes.save(file)


def _sha256(file: Path) -> str:
    return _digest(file, lambda _: None)


def _sha256_of_large(file: Path, size: int) -> str:
    with progress(f"hash of {file.name}", size, "B") as advance:
        return _digest(file, advance)


def _digest(file: Path, advance: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    with open_regular(file) as source:
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()
