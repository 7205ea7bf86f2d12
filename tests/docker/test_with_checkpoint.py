"""docker/with-checkpoint.sh: what of a checkpoint a container gets to see, with `env` in place of docker."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.docker.project import DOCKER

BLOBS = {"config.json": "c" * 64, "model.safetensors": "d" * 64}


class Outcome:
    """The arguments that docker would get, or the line by which the script refuses."""

    def __init__(self, checkpoint: Path, template: Path | None = None) -> None:
        environment = {**os.environ, "CHECKPOINT": str(checkpoint), "CHAT_TEMPLATE": str(template or "")}
        command = [str(DOCKER / "with-checkpoint.sh"), "printf", r"%s\0", "run", "--", "engine", "build"]
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, cwd=checkpoint.parent, check=False
        )
        assert ended.stderr == ""
        self.refusal = ended.stdout if ended.returncode else ""
        arguments = ended.stdout.split("\0")[:-1]
        end = arguments.index("engine") if arguments else 0
        self.volumes = arguments[2:end:2]
        self.command = arguments[end:]
        assert arguments[1:end:2] == ["--volume"] * len(self.volumes)

    def inside(self, path: Path) -> Path:
        """The file of this machine that a path is in the container, with links resolved there."""
        places = {
            Path(place): Path(source) for source, place, mode in (v.split(":") for v in self.volumes) if mode == "ro"
        }
        for parent in [path, *path.parents]:
            if parent in places:
                found = places[parent] / path.relative_to(parent)
                if not found.is_symlink():
                    assert found.exists()
                    return found
                target = found.readlink()
                return self.inside(Path(os.path.normpath(path.parent / target)))
        pytest.fail(f"{path} is not mounted")


def make_cache(repository: Path, absolute: bool = False) -> Path:
    """A repository as in Hugging Face's cache; its snapshot."""
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    (repository / "blobs").mkdir()
    for name, blob in BLOBS.items():
        (repository / "blobs" / blob).write_text(name)
        (snapshot / name).symlink_to((repository / "blobs" / blob) if absolute else Path("../../blobs") / blob)
    return snapshot


@pytest.fixture(params=["plain", "with spaces and 'quotes' and $(dollars)"])
def directory(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Where the test makes its checkpoints."""
    place: Path = tmp_path / request.param
    place.mkdir()
    return place


def test_a_directory_of_files_is_mounted_under_its_own_path(directory: Path) -> None:
    checkpoint = directory / "mixtral"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text("{}")
    outcome = Outcome(checkpoint)
    assert outcome.volumes == [f"{checkpoint}:{checkpoint}:ro"]
    assert outcome.command == ["engine", "build", str(checkpoint)]


@pytest.mark.parametrize("absolute", [False, True], ids=["relative links", "absolute links"])
def test_a_snapshot_is_mounted_with_the_blobs_that_its_links_lead_to(directory: Path, absolute: bool) -> None:
    snapshot = make_cache(directory / "models--org--name", absolute)
    outcome = Outcome(snapshot)
    assert outcome.command == ["engine", "build", str(snapshot)]
    assert len(outcome.volumes) == 2
    for name in BLOBS:
        assert outcome.inside(snapshot / name).read_text() == name


def test_a_repository_of_the_cache_is_mounted_as_a_whole(directory: Path) -> None:
    repository = directory / "models--org--name"
    snapshot = make_cache(repository)
    outcome = Outcome(repository)
    assert outcome.volumes == [f"{repository}:{repository}:ro"]
    for name in BLOBS:
        assert outcome.inside(snapshot / name).read_text() == name


def test_a_link_to_a_snapshot_is_mounted_so_that_relative_links_work_from_there(directory: Path) -> None:
    snapshot = make_cache(directory / "cache" / "models--org--name")
    checkpoint = directory / "deep" / "down" / "mixtral"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.symlink_to(snapshot)
    outcome = Outcome(checkpoint)
    assert outcome.command == ["engine", "build", str(checkpoint)]
    for name in BLOBS:
        assert outcome.inside(checkpoint / name).read_text() == name


def test_a_given_template_is_mounted_and_passed_on(directory: Path) -> None:
    checkpoint, template = directory / "mixtral", directory / "chat.jinja"
    checkpoint.mkdir()
    template.write_text("{{ messages }}")
    outcome = Outcome(checkpoint, template)
    assert outcome.volumes == [f"{checkpoint}:{checkpoint}:ro", f"{template}:{template}:ro"]
    assert outcome.command == ["engine", "build", "--chat-template", str(template), str(checkpoint)]


def test_what_docker_cannot_mount_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    assert Outcome(tmp_path / "a:b").refusal == (
        f"{tmp_path}/a:b has a colon in its path, which Docker cannot mount; move it\n"
    )
    checkpoint = tmp_path / "mixtral"
    checkpoint.mkdir()
    assert Outcome(checkpoint, tmp_path / "none.jinja").refusal == (
        f"{tmp_path}/none.jinja is no file; name one: CHAT_TEMPLATE=FILE\n"
    )
    (tmp_path / "second").symlink_to(tmp_path / "third")
    (tmp_path / "third").write_text("{}")
    (checkpoint / "config.json").symlink_to(tmp_path / "second")
    assert Outcome(checkpoint).refusal == (
        f"{checkpoint}/config.json leads to a link of another name, {tmp_path}/second; copy the checkpoint: cp -rL\n"
    )


def test_a_link_that_leads_nowhere_is_left_to_the_build(tmp_path: Path) -> None:
    checkpoint = tmp_path / "mixtral"
    checkpoint.mkdir()
    (checkpoint / "README.md").symlink_to(tmp_path / "gone")
    assert Outcome(checkpoint).volumes == [f"{checkpoint}:{checkpoint}:ro"]
