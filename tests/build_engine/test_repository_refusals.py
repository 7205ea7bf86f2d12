"""Why `build` refuses a model repository: its limits, its disk, another build."""

import fcntl
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from build_engine.__main__ import main
from build_engine.openvino import build
from tests.build_engine.workplace import CheckpointDir, Repository

Refuse = Callable[[list[str]], str]
TAKES = "accepted: a writable directory with enough room"

LIMITS: dict[str, tuple[str, str, str]] = {
    "no max_seq_len": ("max_seq_len", "other", "parameter max_seq_len is ''; accepted: a positive integer"),
    "max_seq_len that is no number": (
        'string_value: "8192"',
        'string_value: "many"',
        "parameter max_seq_len is 'many'; accepted: a positive integer",
    ),
    "max_seq_len of zero": (
        'string_value: "8192"',
        'string_value: "0"',
        "parameter max_seq_len is '0'; accepted: a positive integer",
    ),
    "no max_num_tokens": ("max_num_tokens", "other", "parameter max_num_tokens is ''; accepted: a positive integer"),
    "gather_generation_logits that is neither": (
        '{ key: "precision", value: { string_value: "auto" } },',
        '{ key: "gather_generation_logits", value: { string_value: "yes" } },',
        "parameter gather_generation_logits is 'yes'; accepted: 'true' or 'false'",
    ),
    "no max_batch_size": ("max_batch_size:", "#", "max_batch_size is 0; accepted: at least 1"),
    "max_seq_len beyond the model's positions": (
        'string_value: "8192"',
        'string_value: "8193"',
        "max_seq_len is 8193; accepted: at most 8192, the positions of {checkpoint}",
    ),
}


@contextmanager
def mounted(place: Path, *options: str) -> Iterator[None]:
    """A mount for the duration of a test, which is skipped where mounting is not allowed."""
    if subprocess.run(["mount", *options, str(place)], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


@contextmanager
def file_size_limit(limit_bytes: int) -> Iterator[None]:
    """Files cannot grow beyond the limit, as on a full disk. Python ignores the signal, so writing raises OSError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def unharmed(repository: Repository) -> Iterator[Repository]:
    """A repository with an engine. Checks after the test that nothing in it changed."""
    repository.hold_fake_engine()
    before = repository.contents()
    yield repository
    assert repository.contents() == before


@pytest.mark.parametrize(("old", "new", "message"), LIMITS.values(), ids=LIMITS)
def test_config_pbtxt_is_refused_for(
    refuse: Refuse, repository: Repository, checkpoint: CheckpointDir, old: str, new: str, message: str
) -> None:
    repository.limit(old, new)
    before = repository.contents()
    file = repository.model / "config.pbtxt"
    assert refuse(repository.build(checkpoint)) == f"{file}: {message}".replace("{checkpoint}", str(checkpoint.path))
    assert repository.contents() == before


def test_a_sliding_window_that_bounds_max_seq_len_is_named(
    refuse: Refuse, repository: Repository, checkpoint: CheckpointDir
) -> None:
    checkpoint.configure(sliding_window=4096)
    assert refuse(repository.build(checkpoint)) == (
        f"{repository.model}/config.pbtxt: max_seq_len is 8192; accepted: at most 4096,"
        f" the sliding_window of {checkpoint.path}"
    )


@pytest.mark.parametrize("garbage", [b"max_batch_size: [", b"\xff\xfe\x00", b"no_such_field: 1"], ids=repr)
def test_config_pbtxt_is_refused_when_it_is_garbage(
    refuse: Refuse, repository: Repository, checkpoint: CheckpointDir, garbage: bytes
) -> None:
    file = repository.model / "config.pbtxt"
    file.write_bytes(garbage)
    line = refuse(repository.build(checkpoint))
    assert line.startswith(f"{file}: does not parse (")
    assert line.endswith("; accepted: a Triton model configuration")


def test_a_repository_without_the_model_is_refused(
    refuse: Refuse, repository: Repository, checkpoint: CheckpointDir
) -> None:
    shutil.rmtree(repository.path)
    assert refuse(repository.build(checkpoint)) == (
        f"{repository.model}/config.pbtxt: cannot be read (No such file or directory);"
        " accepted: a Triton model configuration"
    )
    assert not repository.path.exists()


def test_a_model_without_its_version_directory_is_refused(
    refuse: Refuse, repository: Repository, checkpoint: CheckpointDir
) -> None:
    shutil.rmtree(repository.version)
    line = refuse(repository.build(checkpoint))
    assert line == f"{repository.version}: cannot be written (No such file or directory); {TAKES}"
    assert not repository.version.exists()


def test_a_file_in_the_place_of_the_version_directory_is_refused(
    refuse: Refuse, repository: Repository, checkpoint: CheckpointDir
) -> None:
    shutil.rmtree(repository.version)
    repository.version.write_text("a file")
    line = refuse(repository.build(checkpoint))
    assert line == f"{repository.version}: cannot be written (Not a directory); {TAKES}"
    assert repository.version.read_text() == "a file"


def test_a_read_only_repository_is_refused(refuse: Refuse, unharmed: Repository, checkpoint: CheckpointDir) -> None:
    with mounted(unharmed.path, "--bind", "-o", "ro", str(unharmed.path)):
        line = refuse(unharmed.build(checkpoint))
    assert line == f"{unharmed.version}/.engine.partial: cannot be written (Read-only file system); {TAKES}"


@pytest.mark.parametrize("limit_kib", [0, 110, 300], ids="{} KiB".format)
def test_files_that_cannot_grow_are_refused(
    refuse: Refuse, unharmed: Repository, checkpoint: CheckpointDir, limit_kib: int
) -> None:
    with file_size_limit(limit_kib * 1024):
        line = refuse(unharmed.build(checkpoint))
    assert line.startswith(str(unharmed.version))
    assert line.endswith(f"; {TAKES}")


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.8, 0.9, 0.97])
def test_a_disk_that_fills_at_any_time_is_refused(
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    checkpoint: CheckpointDir,
    monkeypatch: pytest.MonkeyPatch,
    engine_bytes: int,
    share: float,
) -> None:
    """A file that is cut short is never published, whether this program or a library writes it."""
    monkeypatch.setattr(build, "check_room", lambda *_: None)  # the room was there when the build began
    place = Repository(tmp_path / "disk")
    place.path.mkdir()
    with mounted(place.path, "-t", "tmpfs", "-o", f"size={int(share * engine_bytes) // 4096 * 4096 + 32768}", "none"):
        place.create()
        before = place.contents()
        assert main(place.build(checkpoint)) == 2
        assert place.contents() == before
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith(f"build_engine: {place.version}")
    assert line.endswith(f"; {TAKES}")


@pytest.fixture(scope="module")
def engine_bytes(tmp_path_factory: pytest.TempPathFactory, pristine_checkpoint: Path) -> int:
    """The size of an engine on a disk with blocks of 4 KiB."""
    built = Repository(tmp_path_factory.mktemp("whole") / "model_repository")
    built.create()
    assert main(built.build(CheckpointDir(pristine_checkpoint))) == 0
    files = [file for file in built.engine.rglob("*") if file.is_file()]
    return sum(-(-file.stat().st_size // 4096) * 4096 for file in files)


def test_two_builds_at_a_time_are_refused(refuse: Refuse, unharmed: Repository, checkpoint: CheckpointDir) -> None:
    other_build = os.open(unharmed.version, os.O_RDONLY)
    try:
        fcntl.flock(other_build, fcntl.LOCK_EX)
        line = refuse(unharmed.build(checkpoint))
    finally:
        os.close(other_build)
    assert line == f"{unharmed.version}: another build is running; accepted: one at a time"


def test_a_tokenizer_that_openvino_does_not_know_is_refused(
    capsys: pytest.CaptureFixture[str], unharmed: Repository, checkpoint: CheckpointDir
) -> None:
    """`inspect` does not find it: only the conversion shows what OpenVINO supports."""
    tokenizer = json.loads((checkpoint.path / "tokenizer.json").read_bytes())
    checkpoint.write("tokenizer.json", json.dumps({**tokenizer, "pre_tokenizer": {"type": "UnicodeScripts"}}))
    assert main(unharmed.build(checkpoint)) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("build_engine: tokenizer.json: cannot be converted (")
    assert line.endswith("); accepted: a tokenizer that OpenVINO knows")
