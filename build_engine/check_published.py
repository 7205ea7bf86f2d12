"""Whether every byte of a published engine, and of its checkpoint for `build --check`, is as its manifest says."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .checkpoint import Checkpoint
from .errors import EngineError
from .hashes import Hashes
from .manifest import MANIFEST, published_files, read_manifest


def check_published(engine_dir: Path, checkpoint: Checkpoint) -> int:
    """The number of files that were read. Nothing is taken from an earlier reading.

    Raises EngineError that names each file that differs, CheckpointError for a file that cannot be read.
    """
    manifest, hashes = read_manifest(engine_dir), Hashes()
    contents = checkpoint.contents(hashes)
    differences = [
        *_differences(engine_dir, manifest["files"], _engine_files(engine_dir, hashes)),
        *_differences(checkpoint.path, manifest["checkpoint"]["files"], contents),
    ]
    _refuse(differences, engine_dir)
    return len(manifest["files"]) + len(contents)


def check_engine_files(engine_dir: Path, manifest: dict[str, Any], hashes: Hashes) -> None:
    """Raises EngineError that names each file that differs from `manifest`, the engine's own."""
    _refuse(_differences(engine_dir, manifest["files"], _engine_files(engine_dir, hashes)), engine_dir)


def _refuse(differences: Iterable[str], engine_dir: Path) -> None:
    if named := "; ".join(differences):
        raise EngineError(f"{named}; accepted: what {engine_dir / MANIFEST} lists; build again")


def _engine_files(engine_dir: Path, hashes: Hashes) -> dict[str, str]:
    try:
        return published_files(engine_dir, hashes)
    except OSError as error:
        raise EngineError(
            f"{error.filename or engine_dir}: cannot be read ({error.strerror}); accepted: a published file"
        ) from error


def _differences(directory: Path, listed: Mapping[str, str], found: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*listed, *found}):
        if listed.get(name) != found.get(name):
            how = "missing" if name not in found else "not listed" if name not in listed else "has other contents"
            yield f"{directory / name}: {how}"
