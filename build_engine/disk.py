"""Whether the disk has room for an engine beside those that are kept, before it is built."""

import shutil
from pathlib import Path

from .errors import RepositoryError
from .versions import Versions

_MB = 10**6


def other_remedy(engine_dir: Path) -> str:
    """What else makes room: to remove the engine that `make rollback` would serve. Empty where there is none."""
    versions = Versions(engine_dir)
    number = versions.previous
    return "" if number is None else f", or remove {versions.path(number)}, which is kept for a rollback"


def check_room(engine_dir: Path, needed_bytes: int) -> None:
    """Raises RepositoryError if the disk of `engine_dir` has less room than an engine of `needed_bytes` takes."""
    free_bytes = shutil.disk_usage(engine_dir.parent).free
    if free_bytes < needed_bytes:
        raise RepositoryError(
            f"{engine_dir.parent}: {free_bytes // _MB} MB free, and a new engine takes {needed_bytes // _MB} MB;"
            f" accepted: room for it beside the engine in place; free space{other_remedy(engine_dir)}"
        )
