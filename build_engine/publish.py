"""Put a finished engine where Triton looks: whole, or not at all.

An engine is staged in a directory beside its place and renamed into it at the end, so a reader sees the old one or the
new one. Whatever stops the build (an error, a full disk, SIGINT, SIGTERM) leaves the old engine and no stage; what a
kill -9 leaves is cleared by the next build.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .checkpoint import Checkpoint
from .errors import RepositoryError
from .interrupts import interruptible
from .limits import Limits

MANIFEST = "manifest.json"
_FORMAT = 1


def make_manifest(target: str, checkpoint: Checkpoint, limits: Limits, versions: Mapping[str, str]) -> dict[str, Any]:
    """What was built from what, with which versions, for which limits; equal manifests mean equal engines."""
    return {
        "format": _FORMAT,
        "target": target,
        "checkpoint": {"path": str(checkpoint.path), "fingerprint": checkpoint.fingerprint()},
        "versions": dict(versions),
        "model": {
            "vocab_size": checkpoint.config.vocab_size,
            "kv_bytes_per_token": checkpoint.config.kv_bytes_per_token,
        },
        "limits": limits.to_json(),
    }


def is_published(engine_dir: Path, manifest: dict[str, Any]) -> bool:
    """Whether the engine in place is the one that this manifest describes, with all its files."""
    try:
        published = json.loads((engine_dir / MANIFEST).read_bytes())
        return bool(published == {**manifest, "files": file_sizes(engine_dir)})
    except (OSError, ValueError):
        return False


@contextmanager
def staged(engine_dir: Path, checkpoint: Checkpoint, manifest: dict[str, Any]) -> Iterator[Path]:
    """A directory to build in; on leaving it takes its place as `engine_dir`, complete with tokenizer and manifest.

    Raises RepositoryError when the directory cannot be written or the disk is full, BuildInterrupted on SIGINT and
    SIGTERM; then `engine_dir` is as it was.
    """
    stage, old = (engine_dir.with_name(f".{engine_dir.name}.{state}") for state in ("partial", "old"))
    with interruptible(), disk_errors(engine_dir):
        _restore(engine_dir, old)
        shutil.rmtree(stage, ignore_errors=True)
        try:
            stage.mkdir(parents=True)
            yield stage
            for file in checkpoint.tokenizer_files:
                shutil.copyfile(file, stage / file.name)
            (stage / MANIFEST).write_text(json.dumps({**manifest, "files": file_sizes(stage)}, indent=2) + "\n")
            _replace(stage, engine_dir, old)
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def file_sizes(directory: Path) -> dict[str, int]:
    """Bytes of every file but the manifest itself."""
    sizes = {str(file.relative_to(directory)): file.stat().st_size for file in _files(directory)}
    return {name: size for name, size in sorted(sizes.items()) if name != MANIFEST}


def _files(directory: Path) -> Iterator[Path]:
    return (file for file in directory.rglob("*") if file.is_file())


def _replace(stage: Path, engine_dir: Path, old: Path) -> None:
    _flush(stage)
    if engine_dir.exists():
        engine_dir.rename(old)
    stage.rename(engine_dir)
    shutil.rmtree(old, ignore_errors=True)


def _restore(engine_dir: Path, old: Path) -> None:
    """Undo a `_replace` that was killed between its two renames."""
    if old.exists() and not engine_dir.exists():
        old.rename(engine_dir)
    shutil.rmtree(old, ignore_errors=True)


def _flush(directory: Path) -> None:
    """A full disk may only show here, and a rename must not reach the disk before the files do."""
    for file in _files(directory):
        with file.open("rb") as handle:
            os.fsync(handle.fileno())


@contextmanager
def disk_errors(engine_dir: Path) -> Iterator[None]:
    """A disk that is full, read-only or not ours is the repository's problem: RepositoryError."""
    try:
        yield
    except OSError as error:
        place = error.filename or engine_dir.parent
        raise RepositoryError(f"{place}: cannot write the engine ({error.strerror or error})") from error
