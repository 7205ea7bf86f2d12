"""What is still to be done, from what lies in the checkout."""

import json
import os
from pathlib import Path

import pytest

from frontend.first_run import needs
from frontend.first_run.needs import Needs

DEMO = Path(".cache/demo-checkpoint")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh clone."""
    monkeypatch.chdir(tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    return tmp_path


def install_all(checkout: Path, *, seconds_after: int = 1) -> None:
    (checkout / ".venv").mkdir(exist_ok=True)
    (checkout / ".venv" / ".installed").touch()
    changed = (checkout / "pyproject.toml").stat().st_mtime
    os.utime(checkout / ".venv" / ".installed", (changed, changed + seconds_after))


def publish(checkout: Path, checkpoint: Path) -> None:
    engine = checkout / "model_repository" / "openvino" / "1" / "engine"
    engine.mkdir(parents=True)
    (engine / "manifest.json").write_text(json.dumps({"checkpoint": {"path": str(checkpoint.absolute())}}))


def write_checkpoint(directory: Path, num_bytes: int) -> None:
    directory.mkdir(parents=True)
    (directory / "config.json").write_text("{}")
    with (directory / "model.safetensors").open("wb") as file:
        file.truncate(num_bytes)


def test_a_fresh_clone_needs_packages_a_checkpoint_and_an_engine(checkout: Path) -> None:
    found = needs.needs(DEMO)
    assert found.packages
    assert found.disk_bytes > needs.ENVIRONMENT_BYTES


def test_what_is_there_is_not_needed_again(checkout: Path) -> None:
    install_all(checkout)
    write_checkpoint(DEMO, 10)
    publish(checkout, DEMO)
    found = needs.needs(DEMO)
    assert (found.packages, found.disk_bytes) == (False, 0)


def test_packages_are_installed_again_when_the_list_of_them_has_changed(checkout: Path) -> None:
    install_all(checkout, seconds_after=-1)
    assert needs.needs(DEMO).packages


def test_an_engine_of_another_checkpoint_is_built_again_and_as_large_as_the_checkpoint(checkout: Path) -> None:
    install_all(checkout)
    publish(checkout, DEMO)
    write_checkpoint(checkout / "mixtral", 10**6)
    small = needs.needs(checkout / "mixtral")
    assert small.disk_bytes == 10**6
    write_checkpoint(checkout / "larger", 5 * 10**6)
    large = needs.needs(checkout / "larger")
    assert large == Needs(packages=False, disk_bytes=5 * 10**6, memory_bytes=small.memory_bytes + 4 * 10**6)


def test_a_model_in_the_cache_of_the_hub_is_a_checkpoint(checkout: Path) -> None:
    install_all(checkout)
    model = checkout / "models--casperhansen--mixtral-instruct-awq"
    write_checkpoint(model / "snapshots" / "0a1b", 10**6)
    assert list(needs.problems(model)) == []
    assert needs.needs(model).disk_bytes == 10**6
    publish(checkout, model / "snapshots" / "0a1b")
    assert needs.needs(model).disk_bytes == 0


def test_a_checkpoint_that_is_none_is_named_and_the_demo_is_made(checkout: Path) -> None:
    (problem,) = needs.problems(Path("/opt/models/no mixtral"))
    assert problem == (
        "CHECKPOINT: /opt/models/no mixtral has no config.json; name the directory of an AutoAWQ Mixtral:"
        " CHECKPOINT=DIR"
    )
    assert list(needs.problems(DEMO)) == []
    write_checkpoint(checkout / "mixtral", 10)
    assert list(needs.problems(checkout / "mixtral")) == []


def test_a_repository_of_hugging_faces_cache_counts_what_its_links_lead_to_once(checkout: Path) -> None:
    install_all(checkout)
    write_checkpoint(checkout / "plain", 10**6)
    repository = checkout / "models--org--name"
    (repository / "blobs").mkdir(parents=True)
    for revision in ("a" * 40, "b" * 40):
        snapshot = repository / "snapshots" / revision
        snapshot.mkdir(parents=True)
        for file in (checkout / "plain").iterdir():
            (repository / "blobs" / file.name).write_bytes(file.read_bytes())
            (snapshot / file.name).symlink_to(Path("../../blobs") / file.name)
    assert list(needs.problems(repository)) == []
    plain = needs.needs(checkout / "plain")
    assert needs.needs(repository) == needs.needs(snapshot) == plain
