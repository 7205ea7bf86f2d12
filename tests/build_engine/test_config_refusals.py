"""The small files of a checkpoint that `inspect` and `build` refuse, each with its message."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from build_engine.mixtral import to_mixtral_config
from tests.build_engine.workplace import SMALL, CheckpointDir, Damage, start

JSON = "accepted: a JSON object"

FILES: dict[str, tuple[Damage, str]] = {
    "no config.json": (lambda c: c.remove("config.json"), "config.json: missing in {path}; " + JSON),
    "unreadable config.json": (
        lambda c: c.make_unreadable("config.json"),
        "config.json: cannot be read (Too many levels of symbolic links); " + JSON,
    ),
    "empty config.json": (
        lambda c: c.write("config.json", ""),
        "config.json: does not parse (Expecting value: line 1 column 1 (char 0)); " + JSON,
    ),
    "binary config.json": (
        lambda c: c.write("config.json", b'{"a": "\xff"}'),
        "config.json: does not parse ('utf-8' codec can't decode byte 0xff in position 7: invalid start byte); " + JSON,
    ),
    "config.json that is a list": (lambda c: c.write("config.json", "[1]"), "config.json: holds a list; " + JSON),
    "no tokenizer.json": (lambda c: c.remove("tokenizer.json"), "tokenizer.json: missing in {path}; " + JSON),
    "no tokenizer_config.json": (
        lambda c: c.remove("tokenizer_config.json"),
        "tokenizer_config.json: missing in {path}; " + JSON,
    ),
    "tokenizer.json of something else": (
        lambda c: c.write("tokenizer.json", "{}"),
        "tokenizer.json: does not load (Model missing. at line 1 column 2); accepted: a fast tokenizer",
    ),
    "tokenizer_config.json that is no JSON": (
        lambda c: c.write("tokenizer_config.json", "nothing"),
        "tokenizer_config.json: does not parse (Expecting value: line 1 column 1 (char 0)); " + JSON,
    ),
}

MODELS: dict[str, tuple[Damage, str]] = {
    "another model": (
        lambda c: c.configure(model_type="llama"),
        'config.json: model_type is "llama"; accepted: "mixtral"',
    ),
    "no model type": (
        lambda c: c.configure(model_type=None),
        'config.json: model_type is missing; accepted: "mixtral"',
    ),
    "another activation": (
        lambda c: c.configure(hidden_act="gelu"),
        'config.json: hidden_act is "gelu"; accepted: "silu"',
    ),
    "linear rope scaling": (
        lambda c: c.configure(rope_scaling={"type": "linear", "factor": 2.0}),
        'config.json: rope_scaling.type is "linear"; accepted: "default"',
    ),
    "dynamic rope scaling": (
        lambda c: c.configure(rope_scaling={"rope_type": "dynamic", "factor": 2.0}),
        'config.json: rope_scaling.rope_type is "dynamic"; accepted: "default"',
    ),
    "yarn in rope_parameters": (
        lambda c: c.configure(rope_parameters={"rope_type": "yarn", "rope_theta": 1e6}),
        'config.json: rope_parameters.rope_type is "yarn"; accepted: "default"',
    ),
    "rope scaling beside default rope_parameters": (
        lambda c: c.configure(rope_parameters={"rope_type": "default"}, rope_scaling={"type": "linear"}),
        'config.json: rope_scaling.type is "linear"; accepted: "default"',
    ),
    "rope scaling that is no object": (
        lambda c: c.configure(rope_scaling="linear"),
        'config.json: rope_scaling is "linear"; accepted: an object, or none',
    ),
    "tied embeddings given as a string": (
        lambda c: c.configure(tie_word_embeddings="false"),
        'config.json: tie_word_embeddings is "false"; accepted: true or false',
    ),
    "no query heads for each key-value head": (
        lambda c: c.configure(num_key_value_heads=3),
        "config.json: num_key_value_heads is 3; accepted: a divisor of 4",
    ),
    "more experts per token than experts": (
        lambda c: c.configure(num_experts_per_tok=5),
        "config.json: num_experts_per_tok is 5; accepted: at most 4",
    ),
    "odd head_dim": (
        lambda c: c.configure(head_dim=1, num_attention_heads=64, num_key_value_heads=64),
        "config.json: head_dim is 1; accepted: an even number: rotary positions turn pairs",
    ),
}

QUANTIZATION: dict[str, tuple[dict[str, Any], str]] = {
    "GPTQ": ({"quant_method": "gptq"}, 'quant_method is "gptq"; accepted: "awq"'),
    "8 bits": ({"bits": 8}, "bits is 8; accepted: 4"),
    "no bits": ({"bits": None}, "bits is missing; accepted: 4"),
    "no zero points": ({"zero_point": False}, "zero_point is false; accepted: true"),
    "gemv": ({"version": "gemv"}, 'version is "gemv"; accepted: "gemm"'),
    "gemv_fast": ({"version": "gemv_fast"}, 'version is "gemv_fast"; accepted: "gemm"'),
    "marlin": ({"version": "marlin"}, 'version is "marlin"; accepted: "gemm"'),
    "exllama": ({"version": "exllama"}, 'version is "exllama"; accepted: "gemm"'),
    "no version": ({"version": None}, 'version is missing; accepted: "gemm"'),
    "groups of 32": ({"group_size": 32}, "group_size is 32; accepted: 64 or 128"),
    "one group per channel": ({"group_size": -1}, "group_size is -1; accepted: 64 or 128"),
    "a group size in a string": ({"group_size": "64"}, 'group_size is "64"; accepted: 64 or 128'),
}

SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "num_local_experts",
    "num_experts_per_tok",
    "max_position_embeddings",
)
NOT_SIZES: dict[str, tuple[Any, str]] = {
    "missing": (None, "missing"),
    "zero": (0, "0"),
    "negative": (-2, "-2"),
    "a string": ("128", '"128"'),
    "a bool": (True, "true"),
    "a fraction": (128.5, "128.5"),
    "a long list": ([1] * 1000, str([1] * 1000)[:80] + "..."),
}


def test_a_directory_that_does_not_exist_is_refused(refused: Callable[[CheckpointDir], str], tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert refused(CheckpointDir(nowhere)) == (
        f"{nowhere}: no such directory; accepted: a Hugging Face checkpoint directory"
    )


@pytest.mark.parametrize(("damage", "message"), [*FILES.values(), *MODELS.values()], ids=[*FILES, *MODELS])
def test_a_checkpoint_is_refused_for(
    refused: Callable[[CheckpointDir], str], checkpoint: CheckpointDir, damage: Damage, message: str
) -> None:
    damage(checkpoint)
    assert refused(checkpoint) == message.replace("{path}", str(checkpoint.path))


@pytest.mark.parametrize(("fields", "message"), QUANTIZATION.values(), ids=QUANTIZATION)
def test_quantization_is_refused_for(
    refused: Callable[[CheckpointDir], str], checkpoint: CheckpointDir, fields: dict[str, Any], message: str
) -> None:
    checkpoint.quantization(**fields)
    assert refused(checkpoint) == f"config.json: quantization_config.{message}"


def test_a_checkpoint_that_is_not_quantized_is_refused(
    refused: Callable[[CheckpointDir], str], checkpoint: CheckpointDir
) -> None:
    checkpoint.configure(quantization_config=None)
    assert refused(checkpoint) == (
        "config.json: quantization_config is missing; accepted: that of a checkpoint quantised by AutoAWQ"
    )


def test_a_group_size_that_does_not_divide_is_refused(
    refused: Callable[[CheckpointDir], str], checkpoint: CheckpointDir
) -> None:
    checkpoint.quantization(group_size=128)
    assert refused(checkpoint) == (
        "config.json: the sizes give w2 192 inputs; accepted: multiples of the group_size, 128"
    )


def test_outputs_that_do_not_fill_a_packed_word_are_refused(
    refused: Callable[[CheckpointDir], str], checkpoint: CheckpointDir
) -> None:
    checkpoint.configure(num_attention_heads=64, num_key_value_heads=2, head_dim=2)
    assert refused(checkpoint) == "config.json: the sizes give k_proj 4 outputs; accepted: multiples of 8"


@pytest.mark.parametrize(("value", "found"), NOT_SIZES.values(), ids=NOT_SIZES)
@pytest.mark.parametrize("size", SIZES)
def test_a_size_is_refused_that_is(
    refused: Callable[[CheckpointDir], str], checkpoint: CheckpointDir, size: str, value: Any, found: str
) -> None:
    checkpoint.configure(**{size: value})
    assert refused(checkpoint) == f"config.json: {size} is {found}; accepted: a positive integer"


@pytest.mark.parametrize("field", ["rms_norm_eps", "rope_theta"])
@pytest.mark.parametrize("number", ["0", "-1.0", "NaN", "Infinity", "true", '"1e-5"'])
def test_a_constant_is_refused_that_is(
    refused: Callable[[CheckpointDir], str], checkpoint: CheckpointDir, field: str, number: str
) -> None:
    checkpoint.configure(**{field: "VALUE"})
    text = (checkpoint.path / "config.json").read_text()
    checkpoint.write("config.json", text.replace('"VALUE"', number))
    assert refused(checkpoint) == f"config.json: {field} is {number}; accepted: a positive number"


def test_a_sliding_window_shortens_the_context() -> None:
    assert to_mixtral_config({**SMALL, "sliding_window": 4096}).context_length == 4096
    assert to_mixtral_config({**SMALL, "sliding_window": 65536}).context_length == 8192


def test_the_rotary_base_is_found_where_each_transformers_version_puts_it() -> None:
    without = {name: value for name, value in SMALL.items() if name != "rope_theta"}
    for fields in (
        {"rope_theta": 5e5},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
        {"rope_theta": 5e5, "rope_scaling": None},
    ):
        assert to_mixtral_config({**without, **fields}).rope_theta == 5e5
    assert to_mixtral_config(without).rope_theta == 1e6


def test_a_refusal_ends_the_process_with_status_2_and_one_line(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    for command in ("inspect", "build"):
        process = start(["-m", "build_engine", command, str(nowhere)])
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (2, "")
        assert err == f"build_engine: {nowhere}: no such directory; accepted: a Hugging Face checkpoint directory\n"
