"""Publish a directory whole or not at all: an engine where Triton looks for it, or a demo checkpoint.

It is written to a stage, a directory beside its place, and renamed into place at the end. So a reader sees the old
directory or the new one. Whatever stops the build (an error, a full disk, SIGINT, SIGTERM) leaves the old directory and
no stage; what a kill -9 leaves is cleared by the next build.
"""

import enum
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .checkpoint import TEXT_FILES, Checkpoint
from .errors import EngineError, RepositoryError
from .hashes import Hashes
from .model_config import Limits
from .regular_file import MIB, read_regular
from .signals import uninterrupted

ENGINE = Path("1", "engine")
"""Where a Triton model has its engine: in the directory of its version 1."""
MANIFEST = "manifest.json"
USAGE = "usage"
"""Field of the manifest for what a build took. Equal engines may have taken more or less, so it is not compared."""
_MANIFEST_BYTES = 4 * MIB
FORMAT = 4
"""Field `format` of the manifest. Since 4, `files` and `checkpoint.files` have the SHA-256 of each file."""


def make_manifest(
    target: str, checkpoint: Checkpoint, hashes: Hashes, limits: Limits, versions: Mapping[str, str]
) -> dict[str, Any]:
    """What was built from what, with which versions, for which limits; equal manifests mean equal engines.

    Raises CheckpointError when the checkpoint was changed since it was opened.
    """
    return {
        "format": FORMAT,
        "target": target,
        "checkpoint": {"path": checkpoint.name, "files": checkpoint.contents(hashes)},
        "versions": dict(versions),
        "model": {
            "vocab_size": checkpoint.config.vocab_size,
            "kv_bytes_per_token": checkpoint.config.kv_bytes_per_token,
            "end_tokens": checkpoint.end_tokens.to_json(),
        },
        "limits": limits.to_json(),
    }


def is_published(engine_dir: Path, manifest: dict[str, Any], hashes: Hashes) -> bool:
    """Whether the engine in place is the one that this manifest describes, with the contents of all its files."""
    try:
        published = read_manifest(engine_dir)
        if {**published, "files": None, USAGE: None} != {**manifest, "files": None, USAGE: None}:
            return False
        return bool(published["files"] == published_files(engine_dir, hashes))
    except (OSError, EngineError):
        return False


def read_manifest(engine_dir: Path) -> dict[str, Any]:
    """The manifest of the engine in place. Raises EngineError for none of this format."""
    file, accepted = engine_dir / MANIFEST, f"a manifest of format {FORMAT}; build the engine again"
    try:
        manifest = json.loads(read_regular(file, _MANIFEST_BYTES))
    except OSError as error:
        raise EngineError(f"{file}: cannot be read ({error.strerror}); accepted: {accepted}") from error
    except (ValueError, RecursionError) as error:
        raise EngineError(f"{file}: does not parse ({error}); accepted: {accepted}") from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise EngineError(f"{file}: format is {found!r:.80}; accepted: {accepted}")
    checkpoint = manifest.get("checkpoint")
    if not isinstance(manifest.get("files"), dict) or not isinstance(checkpoint, dict) or "files" not in checkpoint:
        raise EngineError(f"{file}: lacks files or checkpoint.files; accepted: {accepted}")
    return dict(manifest)


class Outcome(enum.Enum):
    """What a build has done to the engine in its place."""

    BUILT = "built"
    REFRESHED = "refreshed"
    """Only what is made of the checkpoint's TEXT_FILES is new; the engine itself is as it was."""
    UNCHANGED = "unchanged"


def has_same_engine(engine_dir: Path, manifest: dict[str, Any], names: Sequence[str], hashes: Hashes) -> bool:
    """Whether the files `names` of the engine in place are those that a build for this manifest would write again.

    All that is in the manifest counts, but for what follows from the checkpoint's TEXT_FILES and from its path.
    """
    try:
        published = read_manifest(engine_dir)
        if _engine_part(published) != _engine_part(manifest):
            return False
        return all(published["files"].get(name) == hashes.of(engine_dir / name) for name in names)
    except (OSError, EngineError, KeyError, TypeError):
        return False


def _engine_part(manifest: dict[str, Any]) -> dict[str, Any]:
    files = {name: digest for name, digest in manifest["checkpoint"]["files"].items() if name not in TEXT_FILES}
    model = {name: value for name, value in manifest["model"].items() if name != "end_tokens"}
    return {**manifest, "checkpoint": files, "model": model, "files": None, USAGE: None}


def link_or_copy(source: Path, target: Path) -> None:
    """The same file under a second name, or a copy where that is on another disk. A GPU engine has 25 GB."""
    target.parent.mkdir(exist_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
            raise
        shutil.copyfile(source, target)


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
def staged_engine(engine_dir: Path, checkpoint: Checkpoint, manifest: dict[str, Any], hashes: Hashes) -> Iterator[Path]:
    """`staged` for an engine: at the end of the block, the tokenizer's files and the manifest are added.

    Raises CheckpointError when the checkpoint is no longer the one of the manifest.
    """
    with staged(engine_dir) as stage:
        yield stage
        for name, file in checkpoint.text_files.items():
            (stage / name).write_bytes(file.read_bytes())
        checkpoint.check_unchanged(manifest["checkpoint"]["files"], hashes)
        files = published_files(stage, hashes)
        (stage / MANIFEST).write_text(json.dumps({**manifest, "files": files}, indent=2) + "\n")


def _stage(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.partial")


def _old(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.old")


def published_files(directory: Path, hashes: Hashes) -> dict[str, str]:
    """The SHA-256 of every file but the manifest itself. Raises OSError for what is no regular file."""
    names = sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir())
    return {name: hashes.of(directory / name) for name in names if name != MANIFEST}


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
