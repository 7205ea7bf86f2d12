"""What the frontend refuses of a published engine directory, each with a message that names the file."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from frontend.engine_dir import read_engine_dir
from frontend.errors import StartupError
from tests.frontend.chatml_tokenizer import write_chatml_tokenizer

Damage: TypeAlias = Callable[[Path], object]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write_chatml_tokenizer(tmp_path)
    return tmp_path


def manifest(**fields: Any) -> Damage:
    """Set fields of the manifest."""

    def change(directory: Path) -> None:
        file = directory / "manifest.json"
        file.write_text(json.dumps(json.loads(file.read_bytes()) | fields))

    return change


def content(name: str, text: str | bytes) -> Damage:
    """Replace a file."""
    return lambda directory: (directory / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def fifo(name: str) -> Damage:
    """Put a FIFO in the place of a file: reading it would wait for ever."""

    def change(directory: Path) -> None:
        (directory / name).unlink()
        os.mkfifo(directory / name)

    return change


NEWER = "a newer build wrote it, use the frontend of that release"
AGAIN = "build the engine again"
LACKS = "lacks checkpoint.path, model.vocab_size or model.end_tokens; build the engine again"

CASES: dict[str, tuple[Damage, str]] = {
    "a manifest of a newer format": (manifest(format=5), f"manifest.json has format 5; accepted: 3 to 4; {NEWER}"),
    "a manifest of an older format": (manifest(format=2), f"manifest.json has format 2; accepted: 3 to 4; {AGAIN}"),
    "a manifest without a format": (manifest(format=None), f"manifest.json has format None; accepted: 3 to 4; {AGAIN}"),
    "a format in words": (manifest(format="four"), f"manifest.json has format 'four'; accepted: 3 to 4; {AGAIN}"),
    "a manifest without a model": (manifest(model=None), f"manifest.json {LACKS}"),
    "a model that is a list": (manifest(model=[]), f"manifest.json {LACKS}"),
    "a vocabulary in words": (manifest(model={"vocab_size": "many"}), f"manifest.json {LACKS}"),
    "a manifest that is a list": (content("manifest.json", "[]"), "manifest.json holds no JSON object"),
    "a manifest nested deeply": (content("manifest.json", "[" * 100_000), "manifest.json is not JSON"),
    "a FIFO for a manifest": (fifo("manifest.json"), "manifest.json: not a regular file"),
    "a FIFO for a tokenizer": (fifo("tokenizer.json"), "tokenizer.json: not a regular file"),
    "a FIFO for a template": (fifo("chat_template.jinja"), "chat_template.jinja: not a regular file"),
    "a template that is no text": (content("chat_template.jinja", b"\xff"), "chat_template.jinja is not UTF-8"),
    "a token without content": (
        content("tokenizer_config.json", '{"eos_token": {"special": true}}'),
        "tokenizer_config.json: eos_token is {'special': True}; accepted: a string, or an object with content",
    ),
}


@pytest.mark.parametrize(("damage", "message"), CASES.values(), ids=CASES)
def test_an_engine_directory_is_refused_for(directory: Path, damage: Damage, message: str) -> None:
    damage(directory)
    with pytest.raises(StartupError) as refusal:
        read_engine_dir(directory)
    assert message in str(refusal.value)


@pytest.mark.parametrize("number", [3, 4])
def test_an_engine_of_this_release_and_of_the_one_before_is_read(directory: Path, number: int) -> None:
    manifest(format=number, versions=None)(directory)
    assert read_engine_dir(directory).checkpoint_path == "chatml"
