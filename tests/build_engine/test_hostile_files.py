"""Files that are no checkpoint at all: what would hang, fill memory or end in a traceback is refused by name."""

import json
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from build_engine import checkpoint as checkpoint_module
from build_engine.checkpoint import open_checkpoint
from build_engine.errors import CheckpointError
from build_engine.mixtral import each_tensor, to_mixtral_config
from tests.build_engine.test_weight_refusals import FIRST, matches
from tests.build_engine.workplace import INDEX, SMALL, CheckpointDir, Damage

Refused = Callable[[CheckpointDir], str]
JSON_FILES = ("config.json", "tokenizer_config.json", "generation_config.json", INDEX)
FILES = (*JSON_FILES, "tokenizer.json", "special_tokens_map.json", "chat_template.jinja", FIRST, "model.safetensors")
DEEP = 100_000
REFUSED_JSON: dict[str, tuple[str | bytes, str]] = {
    "nested deeply": ('{"a":' * DEEP + "1" + "}" * DEEP, "does not parse (nested too deeply)"),
    "nested more than can be printed": ('{"a":' + "[" * 900 + "]" * 900 + "}", "does not parse (nested too deeply)"),
    "cut in a deep list": ('{"a":' + "[" * DEEP, "does not parse (nested too deeply)"),
    "a number of 5,000 digits": ('{"a": ' + "9" * 5000 + "}", "does not parse (a number of 5000 digits)"),
    "a name twice": ('{"a": {"b": 1, "b": 2}}', 'does not parse (name "b" twice in one object)'),
    "a byte order mark": (b'\xef\xbb\xbf{"a": 1}', "does not parse (Unexpected UTF-8 BOM …)"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "does not parse ('utf-8' codec can't decode …)"),
    "invalid UTF-8": (b'{"a": "\xff"}', "does not parse ('utf-8' codec can't decode …)"),
    "half a character": ('{"a": "\\ud800"}', "does not parse ('utf-8' codec can't encode …)"),
    "a list": ("[]", "holds a list"),
    "null": ("null", "holds a NoneType"),
    "nothing": ("", "does not parse (…)"),
}
NOT_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a directory": (Path.mkdir, "a directory, not a regular file"),
    "a socket": (lambda path: os.mknod(path, stat.S_IFSOCK), "a socket, not a regular file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "a device, not a regular file"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
}


def accepted(name: str) -> str:
    return {".json": "a JSON object", ".safetensors": "a safetensors file"}.get(Path(name).suffix, "a regular file")


@pytest.mark.parametrize(("content", "found"), REFUSED_JSON.values(), ids=REFUSED_JSON)
def test_json_is_refused_that_is(refused: Refused, checkpoint: CheckpointDir, content: str | bytes, found: str) -> None:
    checkpoint.write("config.json", content)
    line = refused(checkpoint)
    assert matches(line, f"config.json: {found}; accepted: a JSON object"), line


@pytest.mark.parametrize("name", JSON_FILES)
def test_deep_json_is_refused_in(refused: Refused, checkpoint: CheckpointDir, name: str) -> None:
    checkpoint.write(name, "[" * DEEP)
    assert refused(checkpoint) == f"{name}: does not parse (nested too deeply); accepted: a JSON object"


@pytest.mark.parametrize("content", [content for content, _ in REFUSED_JSON.values()], ids=REFUSED_JSON)
def test_a_tokenizer_is_refused_that_is(refused: Refused, checkpoint: CheckpointDir, content: str | bytes) -> None:
    checkpoint.write("tokenizer.json", content)
    line = refused(checkpoint)
    assert matches(line, "tokenizer.json: does not load (…); accepted: a fast tokenizer"), line


@pytest.mark.parametrize("name", FILES)
def test_a_fifo_is_refused_in_the_place_of(refused: Refused, checkpoint: CheckpointDir, name: str) -> None:
    (checkpoint.path / name).unlink(missing_ok=True)
    os.mkfifo(checkpoint.path / name)
    assert refused(checkpoint) == f"{name}: cannot be read (a FIFO, not a regular file); accepted: {accepted(name)}"


@pytest.mark.parametrize(("make", "found"), NOT_FILES.values(), ids=NOT_FILES)
@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors"])
def test_a_file_is_refused_that_is(
    refused: Refused, checkpoint: CheckpointDir, name: str, make: Callable[[Path], object], found: str
) -> None:
    (checkpoint.path / name).unlink(missing_ok=True)
    make(checkpoint.path / name)
    assert refused(checkpoint) == f"{name}: cannot be read ({found}); accepted: {accepted(name)}"


LARGEST = {
    "vocab_size": 4194304,
    "hidden_size": 65536,
    "intermediate_size": 262144,
    "num_hidden_layers": 512,
    "num_attention_heads": 1024,
    "num_key_value_heads": 1024,
    "head_dim": 1024,
    "num_local_experts": 256,
    "num_experts_per_tok": 256,
    "max_position_embeddings": 16777216,
    "sliding_window": 16777216,
}


@pytest.mark.parametrize(("size", "largest"), LARGEST.items(), ids=LARGEST)
def test_a_size_is_refused_beyond(size: str, largest: int) -> None:
    for value, shown in ((largest + 1, str(largest + 1)), (10**4000, f"1{'0' * 79}...")):
        with pytest.raises(CheckpointError) as refusal:
            to_mixtral_config({**SMALL, size: value})
        assert str(refusal.value) == f"config.json: {size} is {shown}; accepted: at most {largest}"


@pytest.mark.parametrize("field", ["rms_norm_eps", "rope_theta"])
def test_a_constant_is_refused_that_no_float_holds(refused: Refused, checkpoint: CheckpointDir, field: str) -> None:
    checkpoint.configure(**{field: 10**400})
    assert refused(checkpoint) == f"config.json: {field} is 1{'0' * 79}...; accepted: a positive number"


def test_a_model_with_the_most_tensors_is_compared_one_by_one(
    checkpoint: CheckpointDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names of its 1.2 million tensors are not made before the first is found missing."""
    checkpoint.configure(num_hidden_layers=512, num_local_experts=256)
    made: list[str] = []

    def counted(config: Any) -> Any:
        for name, spec in each_tensor(config):
            made.append(name)
            yield name, spec

    monkeypatch.setattr(checkpoint_module, "each_tensor", counted)
    with pytest.raises(CheckpointError):
        open_checkpoint(checkpoint.path)
    assert len(made) < 200


HEADERS: dict[str, tuple[Damage, str]] = {
    "of 17 MiB": (
        lambda c: c.write(FIRST, struct.pack("<Q", 17 * 2**20) + b" " * 100),
        f"{FIRST}: truncated or of another format (…{17 * 2**20} bytes, …); accepted: a safetensors file",
    ),
    "of 2**63 bytes": (
        lambda c: c.write(FIRST, struct.pack("<Q", 2**63) + b"{}"),
        f"{FIRST}: truncated or of another format (…{2**63} bytes, …); accepted: a safetensors file",
    ),
    "longer than the file": (
        lambda c: c.write(FIRST, struct.pack("<Q", 1000) + b"{}"),
        f"{FIRST}: truncated or of another format (…); accepted: a safetensors file",
    ),
    "nested deeply": (
        lambda c: c.write(FIRST, header('{"a":' * DEEP + "1" + "}" * DEEP)),
        f"{FIRST}: truncated or of another format (…); accepted: a safetensors file",
    ),
    "with overlapping tensors": (
        lambda c: c.write(FIRST, header(json.dumps({"a": entry(0, 4), "b": entry(0, 4)})) + bytes(8)),
        f"{FIRST}: truncated or of another format (…); accepted: a safetensors file",
    ),
    "with a tensor beyond the end": (
        lambda c: c.write(FIRST, header(json.dumps({"a": entry(0, 2**40, 2**38)})) + bytes(8)),
        f"{FIRST}: truncated or of another format (…); accepted: a safetensors file",
    ),
    "with a size that overflows": (
        lambda c: c.write(FIRST, header(json.dumps({"a": entry(0, 4, 2**62, 2**62)})) + bytes(4)),
        f"{FIRST}: truncated or of another format (…); accepted: a safetensors file",
    ),
}


def header(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def entry(begin: int, end: int, *shape: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape or [1], "data_offsets": [begin, end]}


@pytest.mark.parametrize(("damage", "message"), HEADERS.values(), ids=HEADERS)
def test_a_shard_is_refused_for_a_header(
    refuse: Callable[[list[str]], str], checkpoint: CheckpointDir, damage: Damage, message: str
) -> None:
    damage(checkpoint)
    line = refuse(["inspect", str(checkpoint.path)])  # of several tensors, the library names any
    assert matches(line, message), line


@pytest.mark.parametrize("shard", ["", ".", "a\0b", "\ud800", "../x", "/dev/zero", "x" * 5000], ids=ascii)
def test_an_index_is_refused_that_names(refused: Refused, checkpoint: CheckpointDir, shard: str) -> None:
    checkpoint.index(lambda weight_map: weight_map.update({"model.norm.weight": shard}))
    line = refused(checkpoint)
    assert len(line) < 400
    assert line.startswith(f"{INDEX}: "), line


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.mark.parametrize("name", [FIRST, "tokenizer.json", INDEX])
def test_a_git_lfs_pointer_is_refused_with_the_remedy(refused: Refused, checkpoint: CheckpointDir, name: str) -> None:
    checkpoint.write(name, POINTER)
    assert refused(checkpoint) == (
        f"{name}: a Git LFS pointer, not the file; accepted: {accepted(name)}; run `git lfs pull` in {checkpoint.path}"
    )


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("tokenizer.model", "SentencePiece's: transformers' AutoTokenizer loads it and saves a tokenizer.json"),
        ("tekken.json", "Mistral's own format: the model's Hugging Face repository has a tokenizer.json"),
    ],
)
def test_a_tokenizer_in_another_format_is_refused_with_the_remedy(
    refused: Refused, checkpoint: CheckpointDir, name: str, remedy: str
) -> None:
    checkpoint.remove("tokenizer.json")
    checkpoint.write(name, "")
    assert refused(checkpoint) == (
        f"tokenizer.json: missing in {checkpoint.path}; accepted: a JSON object; {name} is {remedy}"
    )


def test_a_chat_template_in_a_file_that_is_not_read_is_refused(refused: Refused, checkpoint: CheckpointDir) -> None:
    checkpoint.remove("chat_template.jinja")
    checkpoint.write("chat_template.json", '{"chat_template": "x"}')
    assert refused(checkpoint) == (
        "chat_template.json: holds the only chat template, and is not read; accepted: chat_template.jinja, a file with"
        " the text of its field chat_template, or that field in tokenizer_config.json"
    )


def test_a_chat_template_in_two_files_is_accepted(checkpoint: CheckpointDir) -> None:
    checkpoint.write("chat_template.json", '{"chat_template": "x"}')
    checkpoint.write("chat_template.jinja", "x")
    assert "chat_template.json" not in open_checkpoint(checkpoint.path).files


def test_files_that_are_too_large_are_refused(
    refused: Refused, checkpoint: CheckpointDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.truncate(checkpoint.path / "tokenizer.json", 64 * 2**20 + 1)
    assert refused(checkpoint) == "tokenizer.json: cannot be read (larger than 64 MiB); accepted: a JSON object"
    os.truncate(checkpoint.path / "config.json", 16 * 2**20 + 1)
    assert refused(checkpoint) == "config.json: cannot be read (larger than 16 MiB); accepted: a JSON object"


def test_every_real_size_is_accepted() -> None:
    """The largest of what was published: 141 billion parameters, and a context of ten million tokens."""
    sizes = {
        "hidden_size": 6144,
        "intermediate_size": 16384,
        "num_hidden_layers": 56,
        "num_attention_heads": 48,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "vocab_size": 262144,
        "max_position_embeddings": 10_000_000,
    }
    assert to_mixtral_config({**SMALL, **sizes, "head_dim": None}).head_dim == 128
