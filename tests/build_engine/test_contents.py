"""What is published was made of the checkpoint that its manifest names, and every byte of both can be checked."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors

import build_engine.checkpoint
from build_engine import hashes
from build_engine.__main__ import main
from build_engine.checkpoint import Checkpoint, open_checkpoint
from build_engine.openvino import weights
from tests.build_engine.test_publishing import is_whole
from tests.build_engine.test_weight_refusals import FIRST, NORM, SECOND
from tests.build_engine.workplace import INDEX, CheckpointDir, Repository

Succeed = Callable[[list[str]], str]
Refuse = Callable[[list[str]], str]


def flip_last_byte(file: Path) -> None:
    """Change a file's content, but neither its size nor its time."""
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(file: Path) -> None:
    """Put another file of the same size and time in the place of this one."""
    other = Path(shutil.copy2(file, file.with_name("other")))
    flip_last_byte(other)
    other.replace(file)


def in_the_middle(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Call `action` while a build writes weights."""
    encode_weight = weights.encode_weight

    def encode(source: weights.Weights, name: str) -> Any:
        if name == NORM and isinstance(source, Checkpoint):
            action()
        return encode_weight(source, name)

    monkeypatch.setattr(weights, "encode_weight", encode)


@pytest.fixture(params=[0, 2**40], ids=["remembered", "hashed each time"])
def remembered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file counts as large, or none does."""
    monkeypatch.setattr(hashes, "REMEMBERED_BYTES", request.param)


@pytest.mark.parametrize(
    ("name", "change"),
    [(FIRST, replace), (SECOND, flip_last_byte), ("config.json", flip_last_byte), (INDEX, replace)],
)
@pytest.mark.usefixtures("remembered")
def test_a_checkpoint_that_changes_during_the_build_is_not_published(
    capsys: pytest.CaptureFixture[str],
    repository: Repository,
    checkpoint: CheckpointDir,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    change: Callable[[Path], None],
) -> None:
    repository.hold_fake_engine()
    before = repository.contents()
    in_the_middle(monkeypatch, lambda: change(checkpoint.path / name))
    assert main(repository.build(checkpoint)) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"build_engine: {name}: changed during the build, so nothing was published;"
        " accepted: a checkpoint that stays as it is"
    )
    after = repository.contents()
    after.pop("openvino/1/.engine.hashes.json", None)
    assert after == before


def test_a_shard_that_is_removed_during_the_build_is_named(
    capsys: pytest.CaptureFixture[str],
    repository: Repository,
    checkpoint: CheckpointDir,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_the_middle(monkeypatch, lambda: (checkpoint.path / SECOND).unlink())
    assert main(repository.build(checkpoint)) == 2
    assert f"build_engine: {SECOND}: missing in" in capsys.readouterr().err
    assert not repository.engine.exists()


def test_a_shard_that_was_another_for_a_while_is_not_published(
    capsys: pytest.CaptureFixture[str],
    repository: Repository,
    checkpoint: CheckpointDir,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = (checkpoint.path / FIRST).read_bytes()

    def change_and_restore() -> None:
        flip_last_byte(checkpoint.path / FIRST)
        checkpoint.write(FIRST, content)

    in_the_middle(monkeypatch, change_and_restore)
    assert main(repository.build(checkpoint)) == 2
    assert f"build_engine: {FIRST}: changed during the build" in capsys.readouterr().err


def test_a_checkpoint_that_gets_other_rights_and_links_during_the_build_is_published(
    succeed: Succeed,
    repository: Repository,
    checkpoint: CheckpointDir,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:

    def back_up() -> None:
        (checkpoint.path / FIRST).chmod(0o600)
        (tmp_path / "backup").hardlink_to(checkpoint.path / FIRST)

    in_the_middle(monkeypatch, back_up)
    assert succeed(repository.build(checkpoint)).startswith("published")


@pytest.mark.parametrize("name", [FIRST, "tokenizer.json"])
@pytest.mark.usefixtures("remembered")
def test_a_file_of_the_same_size_and_time_is_another_checkpoint(
    succeed: Succeed, repository: Repository, checkpoint: CheckpointDir, name: str
) -> None:
    if name != FIRST:  # whose last byte may be any
        checkpoint.write(name, (checkpoint.path / name).read_text() + " ")
    succeed(repository.build(checkpoint))
    before = (checkpoint.path / name).stat()
    if name == FIRST:
        flip_last_byte(checkpoint.path / name)
    else:
        checkpoint.write(name, (checkpoint.path / name).read_text()[:-1] + "\n")
        os.utime(checkpoint.path / name, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert succeed(repository.build(checkpoint)).startswith("published")
    assert succeed(repository.build(checkpoint)).startswith("nothing changed")


@pytest.mark.parametrize("name", ["openvino_model.bin", "tokenizer.json"])
@pytest.mark.usefixtures("remembered")
def test_an_engine_of_the_same_size_and_time_is_built_again(
    succeed: Succeed, repository: Repository, checkpoint: CheckpointDir, name: str
) -> None:
    succeed(repository.build(checkpoint))
    flip_last_byte(repository.engine / name)
    assert succeed(repository.build(checkpoint)).startswith("published")
    assert succeed(repository.build(checkpoint)).startswith("nothing changed")


@pytest.mark.usefixtures("remembered")
def test_a_checkpoint_that_only_got_other_times_is_the_same(
    succeed: Succeed, repository: Repository, checkpoint: CheckpointDir
) -> None:
    succeed(repository.build(checkpoint))
    for file in checkpoint.path.iterdir():
        os.utime(file)
        file.chmod(0o600)
    assert succeed(repository.build(checkpoint)).startswith("nothing changed")


def test_large_files_are_read_once(
    succeed: Succeed, repository: Repository, checkpoint: CheckpointDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes, "REMEMBERED_BYTES", 0)
    succeed(repository.build(checkpoint))

    def read(file: Path) -> None:
        pytest.fail(f"{file} was read again")

    monkeypatch.setattr(hashes, "open_regular", read)
    assert succeed(repository.build(checkpoint)).startswith("nothing changed")


def test_a_shard_is_opened_again_only_after_it_was_written(
    checkpoint: CheckpointDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def counted(shard: Path, **options: Any) -> Any:
        opened.append(shard.name)
        return safetensors.safe_open(shard, **options)

    monkeypatch.setattr(build_engine.checkpoint, "safe_open", counted)
    found = open_checkpoint(checkpoint.path)
    for name in found.shards:
        found.tensor(name)
    assert sorted(opened) == sorted({FIRST, SECOND})
    before = found.tensor(NORM)
    checkpoint.store(NORM, before + 1)
    assert (found.tensor(NORM) == before + 1).all()
    assert sorted(opened) == sorted([FIRST, SECOND, checkpoint.shard_of(NORM)])


@pytest.mark.parametrize("content", ["", "[1]", "{}", '[{"name": 1}]', "[" * 10_000, '[{"name": "x", "state": {}}]'])
def test_remembered_hashes_that_are_garbage_are_made_again(
    succeed: Succeed, repository: Repository, checkpoint: CheckpointDir, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setattr(hashes, "REMEMBERED_BYTES", 0)
    succeed(repository.build(checkpoint))
    (repository.version / ".engine.hashes.json").write_text(content)
    assert succeed(repository.build(checkpoint)).startswith("nothing changed")
    assert len(json.loads((repository.version / ".engine.hashes.json").read_text())) > 10


def test_the_manifest_has_the_hash_of_every_file(
    succeed: Succeed, repository: Repository, checkpoint: CheckpointDir
) -> None:
    succeed(repository.build(checkpoint))
    assert is_whole(repository)
    assert repository.manifest["checkpoint"]["files"] == {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in checkpoint.path.iterdir()
    }


def test_a_blob_of_the_hugging_face_cache_must_have_the_hash_of_its_name(
    refuse: Refuse, succeed: Succeed, repository: Repository, checkpoint: CheckpointDir, tmp_path: Path
) -> None:
    shard = checkpoint.path / FIRST
    digest = hashlib.sha256(shard.read_bytes()).hexdigest()
    blob = tmp_path / digest
    shard.rename(blob)
    shard.symlink_to(blob)
    assert succeed(repository.build(checkpoint)).startswith("published")
    flip_last_byte(blob)
    assert refuse(repository.build(checkpoint)) == (
        f"{FIRST}: damaged, its SHA-256 is {hashlib.sha256(blob.read_bytes()).hexdigest()}; accepted: {digest},"
        " its name in Hugging Face's cache; remove that file and download it again"
    )


def check(repository: Repository, checkpoint: CheckpointDir) -> list[str]:
    return [*repository.build(checkpoint), "--check"]


def test_check_reads_everything_and_writes_nothing(
    succeed: Succeed, repository: Repository, checkpoint: CheckpointDir
) -> None:
    succeed(repository.build(checkpoint))
    times = repository.times()
    num_files = len(repository.manifest["files"]) + len(list(checkpoint.path.iterdir()))
    assert succeed(check(repository, checkpoint)) == (
        f"unchanged: {repository.engine} and its checkpoint, {num_files} files read\n"
    )
    assert repository.times() == times


CHANGES: dict[str, tuple[Callable[[CheckpointDir, Repository], object], str]] = {
    "an engine's bytes": (
        lambda c, r: flip_last_byte(r.engine / "openvino_model.bin"),
        "{engine}/openvino_model.bin: has other contents",
    ),
    "a file too few": (
        lambda c, r: (r.engine / "tokenizer" / "openvino_tokenizer.bin").unlink(),
        "{engine}/tokenizer/openvino_tokenizer.bin: missing",
    ),
    "a file too many": (lambda c, r: (r.engine / "new").touch(), "{engine}/new: not listed"),
    "a shard's bytes": (lambda c, r: flip_last_byte(c.path / SECOND), f"{{checkpoint}}/{SECOND}: has other contents"),
    "a new template": (
        lambda c, r: c.write("chat_template.jinja", "x"),
        "{checkpoint}/chat_template.jinja: has other contents",
    ),
    "a new file": (
        lambda c, r: c.write("generation_config.json", "{}"),
        "{checkpoint}/generation_config.json: not listed",
    ),
}


@pytest.mark.parametrize(("change", "difference"), CHANGES.values(), ids=CHANGES)
def test_check_names_what_differs(
    succeed: Succeed,
    refuse: Refuse,
    repository: Repository,
    checkpoint: CheckpointDir,
    change: Callable[[CheckpointDir, Repository], object],
    difference: str,
) -> None:
    succeed(repository.build(checkpoint))
    change(checkpoint, repository)
    named = difference.format(engine=repository.engine, checkpoint=checkpoint.path)
    assert refuse(check(repository, checkpoint)) == (
        f"{named}; accepted: what {repository.engine}/manifest.json lists; build again"
    )


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("{", "does not parse (…)"),
        ("[" * 100_000, "does not parse (…)"),
        ("[]", "format is None"),
        ('{"format": 3}', "format is 3"),
        ('{"format": 5}', "format is 5"),
        ('{"format": 4}', "lacks files or checkpoint.files"),
    ],
    ids=str,
)
def test_check_refuses_a_manifest_of(
    refuse: Refuse, repository: Repository, checkpoint: CheckpointDir, content: str | None, found: str
) -> None:
    repository.hold_fake_engine()
    if content is not None:
        (repository.engine / "manifest.json").write_text(content)
    before, _, after = f"{repository.engine}/manifest.json: {found}; accepted: ".partition("…")
    line = refuse(check(repository, checkpoint))
    assert line.startswith(before)
    assert line.endswith(f"{after}a manifest of format 4; build the engine again")


def test_an_engine_directory_with_a_fifo_is_built_again(
    succeed: Succeed, refuse: Refuse, repository: Repository, checkpoint: CheckpointDir
) -> None:
    succeed(repository.build(checkpoint))
    (repository.engine / "tokenizer.json").unlink()
    os.mkfifo(repository.engine / "tokenizer.json")
    assert refuse(check(repository, checkpoint)) == (
        f"{repository.engine}/tokenizer.json: cannot be read (a FIFO, not a regular file); accepted: a published file"
    )
    assert succeed(repository.build(checkpoint)).startswith("published")
    assert is_whole(repository)
