"""Whether the disk has room for an engine beside those that are kept, before it is built."""

import shutil
from pathlib import Path

from .errors import RepositoryError
from .versions import Versions

_MB = 10**6


def kept_engine(engine_dir: Path) -> Path | None:
    """The engine that `make rollback` would serve."""
    versions = Versions(engine_dir)
    number = versions.previous
    return None if number is None else versions.path(number)


def check_room(engine_dir: Path, needed_bytes: int) -> None:
    """Raises RepositoryError if the disk of `engine_dir` has less room than an engine of `needed_bytes` takes."""
    free_bytes, kept = shutil.disk_usage(engine_dir.parent).free, kept_engine(engine_dir)
    if free_bytes < needed_bytes:
        remedy = f", or remove {kept}, which is kept for a rollback" if kept else ""
        raise RepositoryError(
            f"{engine_dir.parent}: {free_bytes // _MB} MB free, and a new engine takes {needed_bytes // _MB} MB;"
            f" accepted: room for it beside the engine in place; free space{remedy}"
        )
