"""A repository of Hugging Face's cache is understood: snapshots of links, and refs that name one of them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from build_engine.hub_cache import snapshot_of
from tests.build_engine.test_publishing import is_whole
from tests.build_engine.workplace import CheckpointDir, Repository
from tests.docker.test_with_checkpoint import make_cache

Succeed = Callable[[list[str]], str]
Refuse = Callable[[list[str]], str]

REVISION = "a" * 40


@pytest.fixture
def cached(checkpoint: CheckpointDir, tmp_path: Path) -> Path:
    """The checkpoint as huggingface_hub stores it: each file a relative link to a blob. A path with spaces."""
    repository = tmp_path / "the cache" / "models--org--name"
    snapshot = repository / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    shutil.move(checkpoint.path, repository / "blobs")
    for number, file in enumerate(sorted((repository / "blobs").iterdir())):
        blob = file.rename(file.with_name(f"{number:040x}"))
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    return repository


@pytest.mark.parametrize("below", [".", f"snapshots/{REVISION}"], ids=["repository", "snapshot"])
def test_it_is_inspected_and_built_and_served_under_the_path_that_was_given(
    succeed: Succeed, repository: Repository, cached: Path, below: str
) -> None:
    given = CheckpointDir(cached / below)
    assert "Mixtral, 2 layers" in succeed(["inspect", str(given.path)])
    assert "tensor_parallel_size" in succeed(["plan", "--gpu", "l40s", str(given.path)])
    assert succeed(repository.build(given)).startswith("published")
    assert is_whole(repository)
    assert repository.manifest["checkpoint"]["path"] == str(given.path)
    assert succeed(repository.build(given)).startswith("nothing changed")
    assert succeed([*repository.build(given), "--check"]).startswith("unchanged")


def test_the_snapshot_of_main_is_taken_though_an_older_one_is_there(tmp_path: Path) -> None:
    snapshot = make_cache(tmp_path / "models--org--name")
    (snapshot.parent / ("0" * 40)).mkdir()
    assert snapshot_of(tmp_path / "models--org--name") == snapshot


def test_the_only_snapshot_is_taken_where_there_is_no_main(tmp_path: Path) -> None:
    """As after a download of a certain revision."""
    snapshot = make_cache(tmp_path / "models--org--name")
    (tmp_path / "models--org--name" / "refs" / "main").unlink()
    assert snapshot_of(tmp_path / "models--org--name") == snapshot


@pytest.mark.parametrize(
    ("main", "others", "message"),
    [
        (None, ["b" * 40], "has no refs/main; accepted: one of its snapshots (A, B), by its own path"),
        ("../../x", [], "names '../../x' in refs/main, which is not in snapshots; accepted: one of its snapshots (A)"),
        ("b" * 40, [], "names 'B' in refs/main, which is not in snapshots; accepted: one of its snapshots (A)"),
    ],
    ids=["two snapshots", "a path", "one that is not there"],
)  # fmt: skip
def test_a_repository_that_does_not_say_which_snapshot_is_refused(
    refuse: Refuse, tmp_path: Path, main: str | None, others: list[str], message: str
) -> None:
    repository = tmp_path / "models--org--name"
    snapshot = make_cache(repository)
    for other in others:
        (snapshot.parent / other).mkdir()
    (repository / "refs" / "main").unlink()
    if main is not None:
        (repository / "refs" / "main").write_text(main)
    assert refuse(["inspect", str(repository)]).startswith(
        f"{repository}: {message.replace('(A', '(' + 'a' * 40).replace('B', 'b' * 40)}"
    )


def test_a_checkpoint_with_a_directory_of_that_name_is_no_repository(checkpoint: CheckpointDir) -> None:
    (checkpoint.path / "snapshots").mkdir()
    assert json.loads((snapshot_of(checkpoint.path) / "config.json").read_bytes())["model_type"] == "mixtral"
