"""Put a finished engine where Triton looks: whole, or not at all.

An engine is staged in a directory beside its place and renamed into it at the end, so a reader sees the old one or the
new one. Whatever stops the build (an error, a full disk, SIGINT, SIGTERM) leaves the old engine and no stage; what a
kill -9 leaves is cleared by the next build.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .checkpoint import Checkpoint
from .errors import RepositoryError
from .model_config import Limits
from .signals import uninterrupted

ENGINE = Path("1", "engine")
"""Where a Triton model has its engine: in the directory of its version 1."""
MANIFEST = "manifest.json"
_FORMAT = 2


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
def only_build(engine_dir: Path) -> Iterator[int]:
    """Keep other builds of this engine away, and clear what a killed one left.

    Yields the lock's descriptor: a program that inherits it keeps them away as long as it lives. Raises RepositoryError
    when another build is running; that, too, for every OSError inside: the place is not writable, or the disk is full.
    """
    with _disk_errors(engine_dir.parent), _locked(engine_dir.parent) as lock:
        _recover(engine_dir)
        yield lock


@contextmanager
def staged(engine_dir: Path, checkpoint: Checkpoint, manifest: dict[str, Any]) -> Iterator[Path]:
    """A directory to build in; on leaving it takes its place as `engine_dir`, complete with tokenizer and manifest.

    Whatever is raised inside, `engine_dir` is then as it was.
    """
    stage = _stage(engine_dir)
    try:
        stage.mkdir()
        yield stage
        for file in checkpoint.tokenizer_files:
            (stage / file.name).write_bytes(file.read_bytes())
        (stage / MANIFEST).write_text(json.dumps({**manifest, "files": file_sizes(stage)}, indent=2) + "\n")
        _flush(stage)
        with uninterrupted():
            _replace(stage, engine_dir)
    finally:
        with uninterrupted():
            _recover(engine_dir)


def _stage(engine_dir: Path) -> Path:
    return engine_dir.with_name(f".{engine_dir.name}.partial")


def _old(engine_dir: Path) -> Path:
    return engine_dir.with_name(f".{engine_dir.name}.old")


def file_sizes(directory: Path) -> dict[str, int]:
    """Bytes of every file but the manifest itself."""
    sizes = {str(file.relative_to(directory)): file.stat().st_size for file in _files(directory)}
    return {name: size for name, size in sorted(sizes.items()) if name != MANIFEST}


def _files(directory: Path) -> Iterator[Path]:
    return (file for file in directory.rglob("*") if file.is_file())


def _replace(stage: Path, engine_dir: Path) -> None:
    if engine_dir.exists():
        engine_dir.rename(_old(engine_dir))
    stage.rename(engine_dir)


def _recover(engine_dir: Path) -> None:
    """Clear every trace of a build but its engine; one stopped between its renames leaves the old engine."""
    if _old(engine_dir).exists() and not engine_dir.exists():
        _old(engine_dir).rename(engine_dir)
    for leftover in (_old(engine_dir), _stage(engine_dir)):
        shutil.rmtree(leftover, ignore_errors=True)


def _flush(directory: Path) -> None:
    """A full disk may only show here, and a rename must not reach the disk before the files do."""
    for file in _files(directory):
        with file.open("rb") as handle:
            os.fsync(handle.fileno())


@contextmanager
def _locked(directory: Path) -> Iterator[int]:
    """The lock is on the directory itself: no file is left behind, and it ends with the process, however that ends."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    except BlockingIOError:
        raise RepositoryError(f"{directory}: another build is running; accepted: one at a time") from None
    finally:
        os.close(descriptor)


@contextmanager
def _disk_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RepositoryError(
            f"{error.filename or directory}: cannot be written ({error.strerror or error});"
            " accepted: a writable directory with room for the engine"
        ) from error
