"""What the frontend refuses of a published engine directory, each with a message that names the file."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from frontend.engine_dir import read_engine_dir, read_given_template, read_sampling_defaults
from frontend.errors import StartupError
from frontend.generation import SamplingDefaults
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


def test_equal_engines_have_one_fingerprint_whenever_they_were_built(directory: Path) -> None:
    before = read_engine_dir(directory).fingerprint
    manifest(usage={"build": {"seconds": 9}}, built={"at": "2026-11-30T06:00:00Z", "by": "mixtral-triton 0.1.0"})(
        directory
    )
    assert read_engine_dir(directory).fingerprint == before
    manifest(versions={"tensorrt_llm": "1.2.2"})(directory)
    assert read_engine_dir(directory).fingerprint != before


# --- default sampling ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"eos_token_id": 2, "_from_model_config": true}', SamplingDefaults()),
        ('{"temperature": 0.6, "top_p": 0.9, "do_sample": true}', SamplingDefaults(temperature=0.6, top_p=0.9)),
        ('{"top_k": 20, "min_p": 0, "temperature": null}', SamplingDefaults(top_k=20, min_p=0)),
        ('{"repetition_penalty": 1.05, "max_new_tokens": 9}', SamplingDefaults(repetition_penalty=1.05)),
    ],
)
def test_default_sampling_is_that_of_generation_config(directory: Path, text: str, expected: SamplingDefaults) -> None:
    content("generation_config.json", text)(directory)
    assert read_sampling_defaults(directory) == expected


def test_a_checkpoint_without_generation_config_has_no_default_sampling(directory: Path) -> None:
    (directory / "generation_config.json").unlink()
    assert read_sampling_defaults(directory) == SamplingDefaults()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"temperature": 2.5}', "temperature is 2.5; accepted: float, 0 to 2"),
        ('{"temperature": "hot"}', "temperature is 'hot'; accepted: float, 0 to 2"),
        ('{"top_k": 1.5}', "top_k is 1.5; accepted: int, -1 to"),
        ('{"top_p": 0}', "top_p is 0; accepted: float, 1e-06 to 1"),
        ('{"min_p": true}', "min_p is True; accepted: float, 0 to 1"),
        ('{"repetition_penalty": [1]}', "repetition_penalty is [1]; accepted: float, 1e-06 to 2"),
        ("[]", "generation_config.json holds no JSON object"),
    ],
)
def test_default_sampling_that_no_request_could_have_is_refused(directory: Path, text: str, message: str) -> None:
    content("generation_config.json", text)(directory)
    with pytest.raises(StartupError) as refusal:
        read_sampling_defaults(directory)
    assert f"{directory / 'generation_config.json'}" in str(refusal.value)
    assert message in str(refusal.value)


# --- the note -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("note", "shown"), [("A demo.", "A demo."), ("A\n\x1b[31mdemo", "A[31mdemo"), (3, ""), (None, "")]
)
def test_a_checkpoints_note_is_one_line_of_text(directory: Path, note: Any, shown: str) -> None:
    file = directory / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_bytes()) | {"note": note}))
    assert read_engine_dir(directory).note == shown


def test_a_checkpoint_needs_no_note(directory: Path) -> None:
    assert read_engine_dir(directory).note == ""


# --- a given chat template -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "template"),
    [
        ("{{ messages }}", "{{ messages }}"),
        (r"{{ messages }}\n\tende", "{{ messages }}\n\tende"),
        (r"{{ 'naïve 你好 \u00fc' }}", "{{ 'naïve 你好 ü' }}"),
        ("line\nbreak", "line\nbreak"),
        ("{" + "x" * 5000 + "}", "{" + "x" * 5000 + "}"),
    ],
)
def test_a_template_may_be_given_in_one_line_as_in_vllm(directory: Path, given: str, template: str) -> None:
    assert read_engine_dir(directory, given).chat_template == template


def test_a_given_file_is_in_place_of_the_published_template(directory: Path) -> None:
    file = directory / "{other}.jinja"
    file.write_text(r"{{ messages }}\n")
    assert read_engine_dir(directory, str(file)).chat_template == r"{{ messages }}\n"
    (directory / "chat_template.jinja").unlink()
    assert read_engine_dir(directory, str(file)).chat_template == r"{{ messages }}\n"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("missing.jinja", "cannot read {directory}/missing.jinja: No such file or directory; accepted: a file, or"),
        ("", "cannot read {directory}: not a regular file; accepted: a file, or a template in one line"),
        ("binary.jinja", "{directory}/binary.jinja is not UTF-8"),
    ],
)
def test_a_given_template_that_is_neither_a_file_nor_a_template_is_refused(
    directory: Path, given: str, words: str
) -> None:
    (directory / "binary.jinja").write_bytes(b"\xff")
    with pytest.raises(StartupError) as caught:
        read_given_template(str(directory / given))
    assert words.format(directory=directory) in str(caught.value)


def test_escapes_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(StartupError, match=r"the escapes in .* cannot be read"):
        read_given_template(r"{{ messages }}\x")
