"""A checkpoint needs a chat template, its own or a given one. Tokenizer and template change without another build."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from build_engine.chat_template import find_chat_template
from build_engine.errors import CheckpointError
from build_engine.openvino import weights
from frontend.engine_dir import read_engine_dir
from frontend.errors import StartupError
from tests.build_engine.test_publishing import is_whole
from tests.build_engine.workplace import CheckpointDir, Repository, start
from tests.frontend.engine_files import write_manifest

Succeed = Callable[[list[str]], str]
Refuse = Callable[[list[str]], str]

TEMPLATE = "{{ bos_token }}{% for message in messages %}[{{ message.content }}]{% endfor %}"
BROKEN = "{% for message in messages %}"
CONFIG = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
REFRESHED = "tokenizer files or chat template are new, the engine is not\n"


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A template outside of the checkpoint."""
    file = tmp_path / "given.jinja"
    file.write_text(TEMPLATE)
    return file


@pytest.fixture
def bare(checkpoint: CheckpointDir) -> CheckpointDir:
    """A checkpoint without a template."""
    checkpoint.remove("chat_template.jinja")
    return checkpoint


def test_a_checkpoint_without_a_template_is_refused_unless_one_is_given(
    refuse: Refuse, succeed: Succeed, repository: Repository, bare: CheckpointDir, given: Path
) -> None:
    message = (
        f"{bare.path}: no chat template; accepted: chat_template.jinja, chat_template in tokenizer_config.json, or one"
        " that is given with --chat-template FILE"
    )
    assert refuse(["inspect", str(bare.path)]) == message
    assert refuse(repository.build(bare)) == message
    assert not repository.engine.exists()
    assert "Mixtral" in succeed(["inspect", "--chat-template", str(given), str(bare.path)])
    build = [*repository.build(bare), "--chat-template", str(given)]
    assert succeed(build) == f"published {repository.engine}\n"
    assert is_whole(repository)
    assert (repository.engine / "chat_template.jinja").read_text() == TEMPLATE
    assert succeed(build).startswith("nothing changed")
    assert succeed([*build, "--check"]).startswith("unchanged")
    given.write_text(TEMPLATE + "!")
    assert f"{bare.path}/chat_template.jinja: has other contents" in refuse([*build, "--check"])
    assert succeed(build).endswith(REFRESHED)
    assert read_engine_dir(repository.engine).chat_template == TEMPLATE + "!"


def test_a_given_template_takes_the_place_of_the_checkpoints_own(
    succeed: Succeed, repository: Repository, checkpoint: CheckpointDir, given: Path
) -> None:
    own = (checkpoint.path / "chat_template.jinja").read_text()
    succeed([*repository.build(checkpoint), "--chat-template", str(given)])
    assert read_engine_dir(repository.engine).chat_template == TEMPLATE
    assert succeed(repository.build(checkpoint)).endswith(REFRESHED)
    assert read_engine_dir(repository.engine).chat_template == own


@pytest.mark.parametrize("is_given", [False, True], ids=["its own", "given"])
def test_a_template_that_renders_no_conversation_is_refused_before_anything_is_built(
    refuse: Refuse, repository: Repository, checkpoint: CheckpointDir, given: Path, is_given: bool
) -> None:
    (given if is_given else checkpoint.path / "chat_template.jinja").write_text(BROKEN)
    option = ["--chat-template", str(given)] if is_given else []
    begin = f"{checkpoint.path}: its chat template renders no plain conversation ("
    assert refuse([*repository.build(checkpoint), *option]).startswith(begin)
    assert refuse(["inspect", *option, str(checkpoint.path)]).startswith(begin)
    assert not repository.engine.exists()


def replace_by_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda file: file.unlink(), "missing in {parent}"),
        (lambda file: file.write_bytes(b"\xff"), "not UTF-8"),
        (replace_by_fifo, "cannot be read (a FIFO, not a regular file)"),
        (lambda file: os.truncate(file, 5 * 2**20), "cannot be read"),
    ],
    ids=["missing", "not text", "a FIFO", "too large"],
)
def test_a_given_template_must_be_a_text_file(
    refuse: Refuse, checkpoint: CheckpointDir, given: Path, make: Callable[[Path], object], found: str
) -> None:
    make(given)
    line = refuse(["inspect", "--chat-template", str(given), str(checkpoint.path)])
    assert line.startswith(f"given.jinja: {found.format(parent=given.parent)}")


@pytest.mark.parametrize(
    ("template", "is_one"),
    [
        ("{{ messages }}", True),
        ([{"name": "rag", "template": "a"}, {"name": "default", "template": "b"}], True),
        ([{"name": "rag", "template": "a"}], False),
        ([1, "x"], False),
        ({"default": "a"}, False),
        (7, False),
        (None, False),
    ],
    ids=str,
)
def test_the_build_and_the_frontend_find_the_same_template(tmp_path: Path, template: Any, is_one: bool) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**CONFIG, "chat_template": template}))
    (tmp_path / "tokenizer.json").write_text("{}")
    write_manifest(tmp_path, "/checkpoint")
    if is_one:
        assert find_chat_template(tmp_path, None) == read_engine_dir(tmp_path).chat_template
    else:
        with pytest.raises(CheckpointError, match="no chat template"):
            find_chat_template(tmp_path, None)
        with pytest.raises(StartupError, match="no chat template"):
            read_engine_dir(tmp_path)


TEXT_CHANGES: dict[str, Callable[[CheckpointDir], object]] = {
    "chat_template.jinja": lambda c: c.write("chat_template.jinja", TEMPLATE),
    "tokenizer_config.json": lambda c: c.write("tokenizer_config.json", json.dumps({**CONFIG, "pad_token": "<unk>"})),
    "generation_config.json": lambda c: c.write("generation_config.json", '{"eos_token_id": [2, 7]}'),
    "special_tokens_map.json": lambda c: c.write("special_tokens_map.json", "{}"),
    "tokenizer.json": lambda c: c.write("tokenizer.json", (c.path / "tokenizer.json").read_text() + " "),
}


@pytest.mark.parametrize("name", TEXT_CHANGES)
def test_a_change_of_tokenizer_or_template_is_published_without_another_build(
    succeed: Succeed,
    repository: Repository,
    checkpoint: CheckpointDir,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    succeed(repository.build(checkpoint))
    before = {file: file.stat().st_ino for file in repository.engine.rglob("openvino_model.*")}
    assert len(before) == 4
    TEXT_CHANGES[name](checkpoint)
    monkeypatch.setattr(weights, "encode_weight", lambda *_: pytest.fail("a weight was converted"))
    assert succeed(repository.build(checkpoint)) == f"published {repository.engine}: {REFRESHED}"
    assert is_whole(repository)
    assert {file: file.stat().st_ino for file in before} == before
    assert (repository.engine / name).read_bytes() == (checkpoint.path / name).read_bytes()
    assert repository.manifest["checkpoint"]["files"].keys() >= {name}
    if name == "generation_config.json":
        assert read_engine_dir(repository.engine).end_tokens.other_end_ids == {7}
    assert succeed(repository.build(checkpoint)).startswith("nothing changed")


def test_a_checkpoint_that_moved_is_served_under_its_new_path_without_another_build(
    succeed: Succeed, repository: Repository, checkpoint: CheckpointDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    succeed(repository.build(checkpoint))
    moved = CheckpointDir(checkpoint.path.rename(checkpoint.path.with_name("moved")))
    monkeypatch.setattr(weights, "encode_weight", lambda *_: pytest.fail("a weight was converted"))
    assert succeed(repository.build(moved)).endswith(REFRESHED)
    assert read_engine_dir(repository.engine).checkpoint_path == str(moved.path)


@pytest.mark.parametrize("name", ["openvino_model.bin", "guide_checker/openvino_model.xml"])
def test_a_damaged_engine_is_not_taken_over(
    succeed: Succeed, repository: Repository, checkpoint: CheckpointDir, name: str
) -> None:
    succeed(repository.build(checkpoint))
    with (repository.engine / name).open("ab") as file:
        file.write(b"x")
    checkpoint.write("chat_template.jinja", TEMPLATE)
    assert succeed(repository.build(checkpoint)) == f"published {repository.engine}\n"
    assert is_whole(repository)


PAUSED_REFRESH = """
import sys, time
from build_engine.openvino import build
from build_engine.__main__ import main

def pause(checkpoint, directory):
    print("paused", flush=True)
    time.sleep(60)

build.write_tokenizer = pause
sys.exit(main(sys.argv[1:]))
"""


def test_a_refresh_that_is_killed_leaves_the_old_one_whole(
    succeed: Succeed, repository: Repository, checkpoint: CheckpointDir
) -> None:
    succeed(repository.build(checkpoint))
    files = {name: (repository.engine / name).read_bytes() for name in repository.manifest["files"]}
    checkpoint.write("chat_template.jinja", TEMPLATE)
    with start(["-c", PAUSED_REFRESH, *repository.build(checkpoint)]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "paused\n"
        process.send_signal(signal.SIGKILL)
    assert {name: (repository.engine / name).read_bytes() for name in files} == files
    assert succeed(repository.build(checkpoint)).endswith(REFRESHED)
    assert is_whole(repository)
