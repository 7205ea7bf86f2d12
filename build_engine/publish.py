"""Publish a directory whole or not at all: an engine where Triton looks for it, or a demo checkpoint.

It is written to a stage, a directory beside its place, and put into place at the end. So a reader sees the old
directory or the new one. Whatever stops the build (an error, a full disk, SIGINT, SIGTERM) leaves the old directory and
no stage; what a kill -9 leaves is cleared by the next build.
"""

import enum
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .checkpoint import Checkpoint
from .errors import RepositoryError
from .hashes import Hashes
from .manifest import BUILT, MANIFEST, built_now, is_published, published_files
from .signals import uninterrupted
from .versions import Versions

ENGINE = Path("1", "engine")
"""Where a Triton model has its engine: in the directory of its version 1, the only one. A link, see versions.py."""


class Outcome(enum.Enum):
    """What a build has done to the engine in its place."""

    BUILT = "built"
    REFRESHED = "refreshed"
    """Only what is made of the checkpoint's TEXT_FILES is new; the engine itself is as it was."""
    RESTORED = "restored"
    """The engine that was kept from before is this one, and is served again."""
    UNCHANGED = "unchanged"


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
def only_engine_build(engine_dir: Path) -> Iterator[int]:
    """`only_build` for an engine."""
    with only_build(engine_dir) as lock:
        Versions(engine_dir).clear()
        yield lock


def find_published(engine_dir: Path, manifest: dict[str, Any], hashes: Hashes) -> Outcome | None:
    """UNCHANGED if the engine of this manifest is served, RESTORED if it was kept and is served again, else None."""
    if is_published(engine_dir, manifest, hashes):
        return Outcome.UNCHANGED
    versions = Versions(engine_dir)
    previous = versions.previous
    if previous is None or not is_published(versions.path(previous), manifest, hashes):
        return None
    with uninterrupted():
        versions.switch(previous)
    return Outcome.RESTORED


def _replace(stage: Path, directory: Path) -> None:
    if directory.exists():
        directory.rename(_old(directory))
    stage.rename(directory)


@contextmanager
def staged(directory: Path, put_in_place: Callable[[Path, Path], None] = _replace) -> Iterator[Path]:
    """An empty directory to write to, which at the end of the block replaces `directory`.

    If the block raises, `directory` stays as it was.
    """
    stage = _stage(directory)
    try:
        stage.mkdir()
        yield stage
        _flush(stage)
        with uninterrupted():
            put_in_place(stage, directory)
    finally:
        with uninterrupted():
            _recover(directory)


@contextmanager
def staged_engine(engine_dir: Path, checkpoint: Checkpoint, manifest: dict[str, Any], hashes: Hashes) -> Iterator[Path]:
    """`staged` for an engine: at the end of the block, the tokenizer's files and the manifest are added.

    What it replaces is kept as a version. Raises CheckpointError when the checkpoint is not the manifest's any more.
    """
    with staged(engine_dir, _publish_version) as stage:
        yield stage
        for name, file in checkpoint.text_files.items():
            (stage / name).write_bytes(file.read_bytes())
        checkpoint.check_unchanged(manifest["checkpoint"]["files"], hashes)
        files = published_files(stage, hashes)
        (stage / MANIFEST).write_text(json.dumps({BUILT: built_now(), **manifest, "files": files}, indent=2) + "\n")


def _publish_version(stage: Path, engine_dir: Path) -> None:
    versions = Versions(engine_dir)
    try:
        versions.publish(stage)
    finally:
        versions.clear()


def _stage(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.partial")


def _old(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.old")


def _files(directory: Path) -> Iterator[Path]:
    return (file for file in directory.rglob("*") if file.is_file())


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
