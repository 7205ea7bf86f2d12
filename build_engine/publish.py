"""Publish a directory whole or not at all: an engine where Triton looks for it, or a demo checkpoint.

It is written to a stage, a directory beside its place, and renamed into place at the end. So a reader sees the old
directory or the new one. Whatever stops the build (an error, a full disk, SIGINT, SIGTERM) leaves the old directory and
no stage; what a kill -9 leaves is cleared by the next build.
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
USAGE = "usage"
"""Field of the manifest for what a build took. Equal engines may have taken more or less, so it is not compared."""
_FORMAT = 3


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
            "end_tokens": checkpoint.end_tokens.to_json(),
        },
        "limits": limits.to_json(),
    }


def is_published(engine_dir: Path, manifest: dict[str, Any]) -> bool:
    """Whether the engine in place is the one that this manifest describes, with all its files."""
    try:
        published = json.loads((engine_dir / MANIFEST).read_bytes())
        expected = {**manifest, "files": file_sizes(engine_dir)}
    except (OSError, ValueError):
        return False
    return isinstance(published, dict) and {**published, USAGE: None} == {**expected, USAGE: None}


@contextmanager
def only_build(directory: Path) -> Iterator[int]:
    """Hold the lock for building `directory`, and clear what a killed build left.

    Yields the lock's descriptor: a program that inherits it holds the lock until it ends. Raises RepositoryError when
    another build is running, and for every OSError inside: the place is not writable, or the disk is full.
    """
    with _disk_errors(directory.parent), _locked(directory.parent) as lock:
        _recover(directory)
        yield lock


@contextmanager
def staged(directory: Path) -> Iterator[Path]:
    """An empty directory to write to, which at the end of the block replaces `directory`.

    If the block raises, `directory` stays as it was.
    """
    stage = _stage(directory)
    try:
        stage.mkdir()
        yield stage
        _flush(stage)
        with uninterrupted():
            _replace(stage, directory)
    finally:
        with uninterrupted():
            _recover(directory)


@contextmanager
def staged_engine(engine_dir: Path, checkpoint: Checkpoint, manifest: dict[str, Any]) -> Iterator[Path]:
    """`staged` for an engine: at the end of the block, the tokenizer's files and the manifest are added."""
    with staged(engine_dir) as stage:
        yield stage
        for file in checkpoint.tokenizer_files:
            (stage / file.name).write_bytes(file.read_bytes())
        (stage / MANIFEST).write_text(json.dumps({**manifest, "files": file_sizes(stage)}, indent=2) + "\n")


def _stage(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.partial")


def _old(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.old")


def file_sizes(directory: Path) -> dict[str, int]:
    """Bytes of every file but the manifest itself."""
    sizes = {str(file.relative_to(directory)): file.stat().st_size for file in _files(directory)}
    return {name: size for name, size in sorted(sizes.items()) if name != MANIFEST}


def _files(directory: Path) -> Iterator[Path]:
    return (file for file in directory.rglob("*") if file.is_file())


def _replace(stage: Path, directory: Path) -> None:
    if directory.exists():
        directory.rename(_old(directory))
    stage.rename(directory)


def _recover(directory: Path) -> None:
    """Remove what a build left beside `directory`; one that was stopped between its two renames is undone."""
    if _old(directory).exists() and not directory.exists():
        _old(directory).rename(directory)
    for leftover in (_old(directory), _stage(directory)):
        shutil.rmtree(leftover, ignore_errors=True)


def _flush(directory: Path) -> None:
    """Write all files to the disk: it may turn out to be full only now, and the rename must not come before them."""
    for file in _files(directory):
        with file.open("rb") as handle:
            os.fsync(handle.fileno())


@contextmanager
def _locked(directory: Path) -> Iterator[int]:
    """Lock the directory itself: that leaves no file behind, and the lock ends with the process, even by a kill -9."""
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
            " accepted: a writable directory with enough room"
        ) from error
