"""Fixtures for the tests of the build."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from build_engine.__main__ import main
from tests.build_engine.workplace import SMALL, CheckpointDir, Repository, write_small_tokenizer
from tests.tiny_mixtral import tiny_tensors, write_checkpoint

Refuse: TypeAlias = Callable[[list[str]], str]


@pytest.fixture(scope="session")
def small_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the files of a small tokenizer."""
    directory = tmp_path_factory.mktemp("tokenizer") / "small"
    write_small_tokenizer(directory)
    return directory


@pytest.fixture(scope="session")
def pristine_checkpoint(tmp_path_factory: pytest.TempPathFactory, small_tokenizer: Path) -> Path:
    """A good checkpoint, not to be written to."""
    return write_checkpoint(
        tmp_path_factory.mktemp("checkpoint") / "small", SMALL, tiny_tensors(SMALL), small_tokenizer
    )


@pytest.fixture
def checkpoint(tmp_path: Path, pristine_checkpoint: Path) -> CheckpointDir:
    """A good checkpoint that the test may damage."""
    return CheckpointDir(Path(shutil.copytree(pristine_checkpoint, tmp_path / "checkpoint")))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A model repository without an engine."""
    created = Repository(tmp_path / "model_repository")
    created.create()
    return created


@pytest.fixture(autouse=True)
def without_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a build takes long enough to show its progress, in lines of its own."""
    monkeypatch.setattr("build_engine.progress._LOG_INTERVAL_S", math.inf)


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Run a command that must end with status 2 and one line on stderr, and return its message."""

    def run(arguments: list[str]) -> str:
        capsys.readouterr()
        status = main(arguments)
        printed = capsys.readouterr()
        assert status == 2, printed
        assert printed.out == ""
        prefix, line = "build_engine: ", printed.err.removesuffix("\n")
        assert line.startswith(prefix)
        assert "\n" not in line
        return line.removeprefix(prefix)

    return run


@pytest.fixture
def refused(refuse: Refuse, repository: Repository) -> Callable[[CheckpointDir], str]:
    """The message by which `inspect` and `build` both refuse a checkpoint. Checks that the repository is unchanged."""
    repository.hold_fake_engine()

    def run(checkpoint: CheckpointDir) -> str:
        before = repository.contents()
        inspected = refuse(["inspect", str(checkpoint.path)])
        built = refuse(repository.build(checkpoint))
        assert inspected == built
        assert repository.contents() == before
        return built

    return run


@pytest.fixture
def succeed(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], str]:
    """Run a command that must end with status 0, and return what it prints on stdout."""

    def run(arguments: list[str]) -> str:
        capsys.readouterr()
        status = main(arguments)
        printed = capsys.readouterr()
        assert status == 0, printed.err
        return printed.out

    return run
