"""The engine that was served before is kept and can be served again, wherever a kill stops a build or a rollback."""

import fcntl
import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from build_engine import hashes
from build_engine.__main__ import main
from build_engine.versions import Versions
from tests.build_engine.test_contents import flip_last_byte
from tests.build_engine.test_publishing import is_whole
from tests.build_engine.workplace import FAKE_ENGINE, CheckpointDir, Repository

Succeed = Callable[[list[str]], str]
Refuse = Callable[[list[str]], str]
TEMPLATES = ("{{ messages[0].content }}", "{{ messages[-1].content }}", "{{ messages[0]['content'] }}!")


class Killed(BaseException):
    """Stands for SIGKILL: from here on, nothing changes a directory, whatever `finally` tries."""


def rollback(repository: Repository) -> list[str]:
    return ["rollback", "--target", "openvino", "--model-repository", str(repository.path)]


def versions(repository: Repository) -> dict[str, str]:
    """The template of each version that is there, and of the served one."""
    found = {path.name: path for path in (repository.version / "engines").iterdir()} | {"served": repository.engine}
    return {name: (path / "chat_template.jinja").read_text() for name, path in found.items()}


def as_earlier_release(repository: Repository) -> None:
    """Without versions: a directory where the link is."""
    engine = repository.engine.resolve()
    repository.engine.unlink()
    engine.rename(repository.engine)
    (repository.version / "engines").rmdir()


@pytest.fixture
def publish(succeed: Succeed, repository: Repository, checkpoint: CheckpointDir) -> Callable[[str], str]:
    """Publish the checkpoint with a template. The engine's own files are taken over, which is quick."""

    def run(template: str) -> str:
        checkpoint.write("chat_template.jinja", template)
        return succeed(repository.build(checkpoint))

    return run


Publish = Callable[[str], str]


def test_the_engine_before_is_kept_whole_and_older_ones_are_removed_by_name(
    publish: Publish, repository: Repository, checkpoint: CheckpointDir, capsys: pytest.CaptureFixture[str]
) -> None:
    for template in TEMPLATES[:2]:
        publish(template)
    assert versions(repository) == {"1": TEMPLATES[0], "2": TEMPLATES[1], "served": TEMPLATES[1]}
    checkpoint.write("chat_template.jinja", TEMPLATES[2])
    capsys.readouterr()
    assert main(repository.build(checkpoint)) == 0
    (removed,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("removed"))
    assert removed.startswith(f"removed {repository.version}/engines/1, of {checkpoint.path} built 20")
    assert " by mixtral-triton " in removed
    assert " with openvino " in removed
    assert versions(repository) == {"2": TEMPLATES[1], "3": TEMPLATES[2], "served": TEMPLATES[2]}
    assert json.loads((repository.version / "engines" / "2" / "manifest.json").read_text())["files"]
    assert is_whole(repository)


def test_a_rollback_goes_back_and_forward_again(publish: Publish, succeed: Succeed, repository: Repository) -> None:
    publish(TEMPLATES[0])
    publish(TEMPLATES[1])
    for number, template in ((1, TEMPLATES[0]), (2, TEMPLATES[1]), (1, TEMPLATES[0])):
        said = succeed(rollback(repository))
        assert said.startswith(f"{repository.engine} is engines/{number} now, of ")
        assert said.endswith("; a server that runs keeps the other one: start it again\n")
        assert versions(repository) == {"1": TEMPLATES[0], "2": TEMPLATES[1], "served": template}
        assert is_whole(repository)


def test_an_engine_that_was_given_up_makes_room_for_the_next(
    publish: Publish, succeed: Succeed, repository: Repository
) -> None:
    publish(TEMPLATES[0])
    publish(TEMPLATES[1])
    succeed(rollback(repository))
    publish(TEMPLATES[2])
    assert versions(repository) == {"1": TEMPLATES[0], "3": TEMPLATES[2], "served": TEMPLATES[2]}


def test_a_build_of_the_kept_engine_serves_it_without_building(
    publish: Publish, succeed: Succeed, repository: Repository
) -> None:
    publish(TEMPLATES[0])
    publish(TEMPLATES[1])
    assert publish(TEMPLATES[0]) == (
        f"published {repository.engine} again: the engine from before is this checkpoint's\n"
    )
    assert versions(repository) == {"1": TEMPLATES[0], "2": TEMPLATES[1], "served": TEMPLATES[0]}


def test_an_engine_of_an_earlier_release_is_kept_as_the_first_version(
    succeed: Succeed, repository: Repository, checkpoint: CheckpointDir
) -> None:
    succeed(repository.build(checkpoint))
    as_earlier_release(repository)
    before = repository.contents()
    assert succeed(repository.build(checkpoint)).startswith("nothing changed")
    assert repository.contents() == before
    checkpoint.write("chat_template.jinja", TEMPLATES[0])
    succeed(repository.build(checkpoint))
    assert repository.engine.readlink() == Path("engines", "2")
    assert is_whole(repository)
    assert "engines/1 now" in succeed(rollback(repository))


def test_a_link_of_the_operator_is_replaced_and_what_it_leads_to_stays(
    succeed: Succeed, repository: Repository, checkpoint: CheckpointDir, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "openvino_model.bin").write_bytes(FAKE_ENGINE)
    repository.engine.symlink_to(tmp_path / "elsewhere")
    succeed(repository.build(checkpoint))
    assert is_whole(repository)
    assert (tmp_path / "elsewhere" / "openvino_model.bin").read_bytes() == FAKE_ENGINE


def test_a_rollback_without_an_engine_from_before(
    publish: Publish, refuse: Refuse, repository: Repository, tmp_path: Path
) -> None:
    nothing = "no engine from before is kept; accepted: a repository in which a build has replaced an engine"
    assert refuse(rollback(repository)) == f"{repository.engine}: {nothing}"
    publish(TEMPLATES[0])
    assert refuse(rollback(repository)) == f"{repository.engine}: {nothing}"
    absent = Repository(tmp_path / "absent")
    assert refuse(rollback(absent)) == f"{absent.engine}: {nothing}"


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "other bytes": (
        lambda kept: flip_last_byte(kept / "openvino_model.bin"),
        "/openvino_model.bin: has other contents",
    ),
    "a file too few": (lambda kept: (kept / "tokenizer.json").unlink(), "/tokenizer.json: missing"),
    "no manifest": (lambda kept: (kept / "manifest.json").unlink(), "/manifest.json: cannot be read"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_kept_engine_that_is_damaged_is_not_served(
    publish: Publish,
    refuse: Refuse,
    repository: Repository,
    checkpoint: CheckpointDir,
    damage: Callable[[Path], object],
    message: str,
) -> None:
    publish(TEMPLATES[0])
    kept = repository.version / "engines" / "1"
    checkpoint.poison("model.norm.weight", 2.0)  # so that no file is shared
    publish(TEMPLATES[1])
    damage(kept)
    assert refuse(rollback(repository)).startswith(f"{kept}{message}")
    assert repository.engine.readlink() == Path("engines", "2")
    assert is_whole(repository)


def test_a_rollback_to_an_engine_for_other_limits(
    publish: Publish, refuse: Refuse, succeed: Succeed, repository: Repository
) -> None:
    publish(TEMPLATES[0])
    repository.limit('string_value: "8192"', 'string_value: "4096"')
    publish(TEMPLATES[0])
    kept = repository.version / "engines" / "1"
    assert refuse(rollback(repository)) == (
        f"{repository.model}/config.pbtxt: max_seq_len is 4096, and {kept} was built for 8192;"
        " accepted: the limits of that engine: write them there first"
    )
    repository.limit('string_value: "4096"', 'string_value: "8192"')
    assert "engines/1 now" in succeed(rollback(repository))


def test_a_rollback_during_a_build_is_refused(publish: Publish, refuse: Refuse, repository: Repository) -> None:
    publish(TEMPLATES[0])
    publish(TEMPLATES[1])
    descriptor = os.open(repository.version, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert refuse(rollback(repository)) == (
            f"{repository.version}: another build is running; accepted: one at a time"
        )
    finally:
        os.close(descriptor)


def test_hashes_are_remembered_through_builds_and_rollbacks(
    publish: Publish,
    succeed: Succeed,
    repository: Repository,
    monkeypatch: pytest.MonkeyPatch,
    checkpoint: CheckpointDir,
) -> None:
    monkeypatch.setattr(hashes, "REMEMBERED_BYTES", 0)
    publish(TEMPLATES[0])
    checkpoint.poison("model.norm.weight", 2.0)
    publish(TEMPLATES[1])
    publish(TEMPLATES[1])

    def read(file: Path) -> None:
        pytest.fail(f"{file} was read again")

    monkeypatch.setattr(hashes, "open_regular", read)
    succeed(rollback(repository))
    succeed(rollback(repository))
    assert succeed(repository.build(checkpoint)).startswith("nothing changed")


class Disk(NamedTuple):
    """What `shutil.disk_usage` returns."""

    total: int
    used: int
    free: int


def test_a_disk_without_room_is_found_before_the_build_and_names_what_could_go(
    publish: Publish, refuse: Refuse, repository: Repository, checkpoint: CheckpointDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(TEMPLATES[0])
    publish(TEMPLATES[1])
    before = repository.contents()
    checkpoint.poison("model.norm.weight", 2.0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(2**40, 2**40, 1000))
    message = refuse(repository.build(checkpoint))
    assert message.startswith(f"{repository.version}: 0 MB free, and a new engine takes ")
    kept = repository.version / "engines" / "1"
    assert message.endswith(f"; free space, or remove {kept}, which is kept for a rollback")
    assert repository.contents() == before


def test_a_server_that_runs_keeps_the_engine_that_it_has_opened(publish: Publish, repository: Repository) -> None:
    publish(TEMPLATES[0])
    resolved = repository.engine.resolve()
    with (repository.engine / "openvino_model.bin").open("rb") as opened:
        content = opened.read()
        publish(TEMPLATES[1])
        assert (resolved / "chat_template.jinja").read_text() == TEMPLATES[0]
        publish(TEMPLATES[2])
        opened.seek(0)
        assert opened.read() == content


def states(repository: Repository) -> tuple[str, str]:
    """The templates of the served and of the kept engine; both are checked against their manifests by a rollback."""
    found = Versions(repository.engine)
    assert found.served is not None
    assert found.previous is not None
    served, kept = (
        (found.path(number) / "chat_template.jinja").read_text() for number in (found.served, found.previous)
    )
    return served, kept


def killed_at(step: int, patch: pytest.MonkeyPatch) -> None:
    """From the change of a directory with this number on, every such change raises Killed."""
    changes = itertools.count()

    def killing(call: Callable[..., Any]) -> Callable[..., Any]:
        def change(*arguments: Any, **options: Any) -> Any:
            if next(changes) >= step:
                raise Killed
            return call(*arguments, **options)

        return change

    for name in ("rename", "symlink_to", "unlink", "mkdir", "rmdir"):
        patch.setattr(Path, name, killing(getattr(Path, name)))
    patch.setattr(shutil, "rmtree", killing(shutil.rmtree))


def kill_at_each_step(repository: Repository, command: list[str], check: Callable[[], None]) -> int:
    """Run the command on copies of the repository, killed at its first change of a directory, its second, ...

    `check` looks at what each leaves, and at what the command leaves that is not killed. Returns how many were killed.
    """
    saved = Path(shutil.copytree(repository.path, repository.path.with_name("saved"), symlinks=True))
    for step in range(100):
        is_killed = False
        with pytest.MonkeyPatch.context() as patch:
            killed_at(step, patch)
            try:
                assert main(command) == 0
            except Killed:
                is_killed = True
        check()
        if not is_killed:
            return step
        shutil.rmtree(repository.path)
        shutil.copytree(saved, repository.path, symlinks=True)
    pytest.fail("the command does not end")


def test_a_build_killed_at_any_step_leaves_two_whole_engines(
    publish: Publish, succeed: Succeed, repository: Repository, checkpoint: CheckpointDir
) -> None:
    publish(TEMPLATES[0])
    publish(TEMPLATES[1])
    checkpoint.write("chat_template.jinja", TEMPLATES[2])
    seen = set()

    def check() -> None:
        seen.add(states(repository))
        succeed(rollback(repository))  # which checks the kept engine
        succeed(rollback(repository))
        succeed(repository.build(checkpoint))
        assert is_whole(repository)
        assert (repository.engine / "chat_template.jinja").read_text() == TEMPLATES[2]

    assert kill_at_each_step(repository, repository.build(checkpoint), check) > 8
    assert seen == {(TEMPLATES[1], TEMPLATES[0]), (TEMPLATES[2], TEMPLATES[1])}


def test_a_rollback_killed_at_any_step_leaves_two_whole_engines(
    publish: Publish, succeed: Succeed, repository: Repository, checkpoint: CheckpointDir
) -> None:
    publish(TEMPLATES[0])
    publish(TEMPLATES[1])
    seen = set()

    def check() -> None:
        seen.add(states(repository))
        succeed(rollback(repository))
        assert is_whole(repository)

    assert kill_at_each_step(repository, rollback(repository), check) > 2
    assert seen == {(TEMPLATES[1], TEMPLATES[0]), (TEMPLATES[0], TEMPLATES[1])}


def test_a_build_after_a_rollback_killed_at_any_step_serves_a_whole_engine(
    publish: Publish, succeed: Succeed, repository: Repository, checkpoint: CheckpointDir
) -> None:
    publish(TEMPLATES[0])
    publish(TEMPLATES[1])
    succeed(rollback(repository))
    checkpoint.write("chat_template.jinja", TEMPLATES[2])
    seen = set()

    def check() -> None:
        seen.add(states(repository))
        succeed(repository.build(checkpoint))
        assert is_whole(repository)

    kill_at_each_step(repository, repository.build(checkpoint), check)
    assert seen == {
        (TEMPLATES[0], TEMPLATES[1]),
        (TEMPLATES[0], TEMPLATES[2]),
        (TEMPLATES[2], TEMPLATES[0]),
    }


def test_a_build_over_an_earlier_release_killed_at_any_step(
    publish: Publish, succeed: Succeed, repository: Repository, checkpoint: CheckpointDir
) -> None:
    publish(TEMPLATES[0])
    as_earlier_release(repository)
    checkpoint.write("chat_template.jinja", TEMPLATES[1])

    def check() -> None:
        succeed(repository.build(checkpoint))
        assert is_whole(repository)
        assert states(repository) == (TEMPLATES[1], TEMPLATES[0])

    assert kill_at_each_step(repository, repository.build(checkpoint), check) > 5
