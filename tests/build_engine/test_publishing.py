"""An engine appears whole or not at all, however a build ends, and is rebuilt only after a change."""

import hashlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from build_engine.__main__ import main
from build_engine.openvino import weights
from tests.build_engine.workplace import FAKE_ENGINE, CheckpointDir, Repository, start

Succeed = Callable[[list[str]], str]
Refuse = Callable[[list[str]], str]

PAUSED_BUILD = """
import math, sys, time
from build_engine import progress
from build_engine.openvino import weights
from build_engine.__main__ import main

progress._LOG_INTERVAL_S = math.inf
encode_weight = weights.encode_weight

def pause_at_the_norm(source, name):
    if name == "model.norm.weight":
        print("paused", flush=True)
        time.sleep(60)
    return encode_weight(source, name)

weights.encode_weight = pause_at_the_norm
sys.exit(main(sys.argv[1:]))
"""
"""A build that prints a line in the middle of its weights, and stops there for a minute."""


def stop_in_the_middle(arguments: list[str], signum: signal.Signals) -> tuple[int, str]:
    """Exit status and stderr of a build that gets a signal while it writes weights."""
    process = start(["-c", PAUSED_BUILD, *arguments])
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "paused\n"
        process.send_signal(signum)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, err


def is_whole(repository: Repository) -> bool:
    """Whether the engine is the one of the manifest, one more is kept at most, and nothing is left of a build."""
    engine = repository.engine
    files = {str(file.relative_to(engine)): file for file in engine.rglob("*") if file.is_file()}
    hashes = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}
    hashes.pop("manifest.json")
    left = {path.name for path in repository.version.iterdir()}
    is_clear = left == {"engine", "engines", "model.py"} and len(list((repository.version / "engines").iterdir())) <= 2
    return hashes == repository.manifest["files"] and is_clear


def test_a_published_engine_has_everything_that_serving_needs(
    succeed: Succeed, repository: Repository, checkpoint: CheckpointDir
) -> None:
    checkpoint.write("generation_config.json", '{"eos_token_id": 2}')
    checkpoint.write("chat_template.jinja", "{{ messages }}")
    assert succeed(repository.build(checkpoint)) == f"published {repository.engine}\n"
    assert is_whole(repository)
    assert repository.manifest["files"].keys() == {
        *("openvino_model.xml", "openvino_model.bin"),
        *("guide_checker/openvino_model.xml", "guide_checker/openvino_model.bin"),
        *("tokenizer/openvino_tokenizer.xml", "tokenizer/openvino_tokenizer.bin"),
        *("tokenizer/openvino_detokenizer.xml", "tokenizer/openvino_detokenizer.bin"),
        *("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"),
    }
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"):
        assert (repository.engine / name).read_bytes() == (checkpoint.path / name).read_bytes()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=lambda signum: signum.name)
def test_an_interrupted_build_leaves_the_old_engine_and_the_next_one_works(
    succeed: Succeed, repository: Repository, checkpoint: CheckpointDir, signum: signal.Signals
) -> None:
    repository.hold_fake_engine()
    before = repository.contents()
    status, err = stop_in_the_middle(repository.build(checkpoint), signum)
    assert (status, err) == (2, f"build_engine: interrupted by {signum.name}; nothing was published\n")
    assert repository.contents() == before
    succeed(repository.build(checkpoint))
    assert is_whole(repository)


def test_after_kill_9_the_old_engine_stays_and_the_next_build_clears_up(
    succeed: Succeed, repository: Repository, checkpoint: CheckpointDir
) -> None:
    repository.hold_fake_engine()
    stop_in_the_middle(repository.build(checkpoint), signal.SIGKILL)
    assert (repository.version / ".engine.partial").is_dir()
    assert (repository.engine / "openvino_model.bin").read_bytes() == FAKE_ENGINE
    succeed(repository.build(checkpoint))
    assert is_whole(repository)


def test_a_library_that_catches_exceptions_does_not_swallow_an_interrupt(
    refuse: Refuse, repository: Repository, checkpoint: CheckpointDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(*_: object) -> list[Any]:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except Exception:
            pytest.fail("the interrupt was caught")
        return []

    monkeypatch.setattr(weights, "encode_weight", careless)
    assert refuse(repository.build(checkpoint)) == "interrupted by SIGINT; nothing was published"


def test_the_signal_handlers_of_the_caller_are_restored(succeed: Succeed, checkpoint: CheckpointDir) -> None:
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    succeed(["inspect", str(checkpoint.path)])
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_between_the_two_renames_is_ignored(
    succeed: Succeed, repository: Repository, checkpoint: CheckpointDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.hold_fake_engine()
    rename = Path.rename

    def interrupted_rename(path: Path, target: Path) -> Path:
        os.kill(os.getpid(), signal.SIGTERM)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted_rename)
    succeed(repository.build(checkpoint))
    assert is_whole(repository)


def test_an_engine_that_cannot_be_put_in_place_leaves_the_old_one(
    capsys: pytest.CaptureFixture[str],
    repository: Repository,
    checkpoint: CheckpointDir,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repository.hold_fake_engine()
    before = repository.contents()
    rename = Path.rename

    def failing_rename(path: Path, target: Path) -> Path:
        if path.name == ".engine.partial":
            raise OSError(5, "Input/output error", str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing_rename)
    assert main(repository.build(checkpoint)) == 2
    assert "cannot be written (Input/output error)" in capsys.readouterr().err
    assert repository.contents() == before


def test_the_old_engine_stays_until_the_new_one_is_complete(
    succeed: Succeed, repository: Repository, checkpoint: CheckpointDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.hold_fake_engine()
    seen = []
    encode_weight = weights.encode_weight

    def watching(source: weights.Weights, name: str) -> Any:
        seen.append((repository.engine / "openvino_model.bin").read_bytes())
        return encode_weight(source, name)

    monkeypatch.setattr(weights, "encode_weight", watching)
    succeed(repository.build(checkpoint))
    assert len(seen) > 10
    assert set(seen) == {FAKE_ENGINE}
    assert (repository.engine / "openvino_model.bin").read_bytes() != FAKE_ENGINE


def test_a_build_killed_between_its_renames_is_undone_by_the_next(
    succeed: Succeed, repository: Repository, checkpoint: CheckpointDir
) -> None:
    succeed(repository.build(checkpoint))
    before = repository.contents()
    repository.engine.rename(repository.version / ".engine.old")
    (repository.version / ".engine.partial").mkdir()
    assert succeed(repository.build(checkpoint)).startswith("nothing changed")
    assert repository.contents() == before


def test_what_a_killed_build_left_beside_a_current_engine_is_cleared(
    succeed: Succeed, repository: Repository, checkpoint: CheckpointDir
) -> None:
    succeed(repository.build(checkpoint))
    for leftover in (".engine.old", ".engine.partial"):
        (repository.version / leftover).mkdir()
        (repository.version / leftover / "openvino_model.bin").write_bytes(FAKE_ENGINE)
    assert succeed(repository.build(checkpoint)).startswith("nothing changed")
    assert is_whole(repository)


def test_a_build_killed_between_its_renames_is_replaced_by_another(
    succeed: Succeed, repository: Repository, checkpoint: CheckpointDir
) -> None:
    repository.hold_fake_engine()
    repository.engine.rename(repository.version / ".engine.old")
    assert succeed(repository.build(checkpoint)).startswith("published")
    assert is_whole(repository)


def test_a_rebuild_with_nothing_changed_writes_nothing_and_says_so(
    succeed: Succeed, repository: Repository, checkpoint: CheckpointDir
) -> None:
    succeed(repository.build(checkpoint))
    times = repository.times()
    assert succeed(repository.build(checkpoint)) == (
        f"nothing changed: {repository.engine} is this checkpoint's engine already\n"
    )
    assert repository.times() == times


CHANGES: dict[str, Callable[[CheckpointDir, Repository], object]] = {
    "a shard": lambda c, r: c.poison("model.norm.weight", 2.0),
    "the config": lambda c, r: c.configure(rope_theta=5e5),
    "tokenizer_config.json": lambda c, r: c.write("tokenizer_config.json", '{"eos_token": "</s>"}'),
    "a new chat template": lambda c, r: c.write("chat_template.jinja", "{{ messages }}"),
    "max_seq_len": lambda c, r: r.limit('string_value: "8192"', 'string_value: "4096"'),
    "max_num_tokens": lambda c, r: r.limit('string_value: "128"', 'string_value: "64"'),
    "a published file cut short": lambda c, r: os.truncate(r.engine / "openvino_model.bin", 1000),
    "a published file removed": lambda c, r: (r.engine / "tokenizer.json").unlink(),
    "no manifest": lambda c, r: (r.engine / "manifest.json").unlink(),
    "a manifest cut short": lambda c, r: os.truncate(r.engine / "manifest.json", 10),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_engine_is_built_again_after_a_change_of(
    succeed: Succeed, repository: Repository, checkpoint: CheckpointDir, change: Callable[..., object]
) -> None:
    succeed(repository.build(checkpoint))
    change(checkpoint, repository)
    assert succeed(repository.build(checkpoint)).startswith("published")
    assert is_whole(repository)
    assert succeed(repository.build(checkpoint)).startswith("nothing changed")
