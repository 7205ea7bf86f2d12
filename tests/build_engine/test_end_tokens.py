"""Which tokens end an answer: decided once, from the checkpoint's files."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from build_engine.end_tokens import EndTokens, read_end_tokens
from build_engine.errors import CheckpointError
from tests.frontend.chatml_tokenizer import write_chatml_tokenizer


def end_tokens_of(directory: Path, generation: Any = None, **tokenizer_config: Any) -> EndTokens:
    """Of a tokenizer with `<|endoftext|>` 0, `<|im_start|>` 1 and `<|im_end|>` 2, its eos_token."""
    write_chatml_tokenizer(directory)
    config = json.loads((directory / "tokenizer_config.json").read_text()) | tokenizer_config
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    (directory / "generation_config.json").unlink()
    if generation is not None:
        (directory / "generation_config.json").write_text(json.dumps(generation))
    return read_end_tokens(directory, Tokenizer.from_file(str(directory / "tokenizer.json")), 400)


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        (None, {}, EndTokens(end_id=2, other_end_ids=(), pad_id=2)),
        ({}, {}, EndTokens(end_id=2, other_end_ids=(), pad_id=2)),
        ({"eos_token_id": None}, {}, EndTokens(end_id=2, other_end_ids=(), pad_id=2)),
        ({"eos_token_id": 0}, {}, EndTokens(end_id=0, other_end_ids=(2,), pad_id=0)),
        ({"eos_token_id": [2, 0]}, {}, EndTokens(end_id=2, other_end_ids=(0,), pad_id=2)),
        ({"eos_token_id": [0, 1]}, {}, EndTokens(end_id=0, other_end_ids=(1, 2), pad_id=0)),
        ({"eos_token_id": 0}, {"eos_token": None}, EndTokens(end_id=0, other_end_ids=(), pad_id=0)),
        (None, {"pad_token": "<|endoftext|>"}, EndTokens(end_id=2, other_end_ids=(), pad_id=0)),
        (None, {"pad_token": {"content": "<|endoftext|>"}}, EndTokens(end_id=2, other_end_ids=(), pad_id=0)),
    ],
)
def test_first_those_of_generation_config_then_the_tokenizers(
    tmp_path: Path, generation: Any, config: dict[str, Any], expected: EndTokens
) -> None:
    assert end_tokens_of(tmp_path, generation, **config) == expected


@pytest.mark.parametrize(
    ("generation", "config", "message"),
    [
        (None, {"eos_token": None}, "eos_token is None; accepted: a token of tokenizer.json"),
        (None, {"eos_token": "<end>"}, "eos_token is '<end>'"),
        ({"eos_token_id": 400}, {}, "eos_token_id has 400; accepted: 0 to 399"),
        ({"eos_token_id": "2"}, {}, "eos_token_id is '2'; accepted: a token id, or a list of them"),
        ([], {}, "holds a list"),
    ],
)
def test_what_names_no_end_token_is_refused(
    tmp_path: Path, generation: Any, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message.replace("(", r"\(")):
        end_tokens_of(tmp_path, generation, **config)
