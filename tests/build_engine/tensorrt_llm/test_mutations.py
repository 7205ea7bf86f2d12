"""Changes of a converted checkpoint and of an engine, each by its name: all are refused, for one GPU and for two.

What is correct and must not be refused is in test_verify.py and at the end of this file.
"""

import json
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from build_engine.checkpoint import Checkpoint
from build_engine.errors import ConversionError, EngineError
from build_engine.model_config import Limits
from build_engine.tensorrt_llm.check_engine import check_engine
from build_engine.tensorrt_llm.commands import build_command
from build_engine.tensorrt_llm.verify import verify
from tests.build_engine.tensorrt_llm.conftest import H100, TOOLS, Convert
from tests.build_engine.tensorrt_llm.test_verify import (
    LAYER,
    add_tensor,
    drop_tensor,
    fewer_positions,
    flip_a_nibble_of,
    foreign_scales,
    gptq_zero,
    half_router,
    negate_zero,
    other_frequencies,
    other_rotations,
    pad_shape,
    roll_scales,
    swap_experts,
    swap_gate_and_up,
    swap_norms,
    swap_one_projection,
)

Tensors: TypeAlias = dict[str, NDArray[Any]]
Fields: TypeAlias = dict[str, Any]
FC, PROJ = f"{LAYER}.mlp.fc", f"{LAYER}.mlp.proj"
QKV, DENSE = f"{LAYER}.attention.qkv", f"{LAYER}.attention.dense"
LIMITS = Limits(max_batch_size=16, max_seq_len=512, max_num_tokens=4096)
MISSING = object()
"""Stands for a field that is taken away."""


def packed_bytes(tensors: Tensors, name: str) -> NDArray[np.uint8]:
    """The bytes of a packed weight, [..., K, N/2]: a view."""
    return tensors[f"{name}.weight"].view(np.uint8)


def swap_two_bytes(tensors: Tensors) -> None:
    row = packed_bytes(tensors, FC)[2, 77]
    first = next(place for place in range(len(row) - 1) if row[place] != row[place + 1])
    row[[first, first + 1]] = row[[first + 1, first]]


def swap_two_rows(tensors: Tensors) -> None:
    matrix = packed_bytes(tensors, PROJ)[3]
    matrix[[40, 90]] = matrix[[90, 40]]


def swap_two_rows_of_attention(tensors: Tensors) -> None:
    matrix = packed_bytes(tensors, DENSE)
    matrix[[3, 5]] = matrix[[5, 3]]


def shuffle_all_but_the_sampled_rows(tensors: Tensors) -> None:
    """An earlier check compared only the first row, the last, and 32 that it drew with this seed."""
    rank = 0 if tensors["lm_head.weight"].shape[0] == 32000 else 1
    seed = zlib.crc32(f"{FC}.1.{rank}".encode())
    matrix = packed_bytes(tensors, FC)[1]
    sampled = np.union1d(np.random.default_rng(seed).choice(len(matrix), 32, replace=False), [0, len(matrix) - 1])
    others = np.setdiff1d(np.arange(len(matrix)), sampled)
    values = matrix[others].reshape(-1)
    np.random.default_rng(1).shuffle(values)
    matrix[others] = values.reshape(len(others), -1)


def swap_nibbles_of_one_byte(tensors: Tensors) -> None:
    row = packed_bytes(tensors, QKV)[9]
    place = next(place for place, byte in enumerate(row) if byte >> 4 != byte & 15)
    row[place] = (row[place] << 4) | (row[place] >> 4)


def swap_two_outputs(tensors: Tensors) -> None:
    """Two columns of a tile: every K/2 bytes of an expert's matrix hold one of four columns in turn."""
    matrix = packed_bytes(tensors, PROJ)[0]
    tiles = matrix.reshape(-1, 4, 32)
    tiles[:, [1, 2]] = tiles[:, [2, 1]]


def add_one_to_all_values(tensors: Tensors) -> None:
    matrix = packed_bytes(tensors, PROJ)[1]
    matrix[:] = ((matrix + 1) & 0x0F) | ((matrix + 16) & 0xF0)


def swap_two_scales(tensors: Tensors) -> None:
    scales = tensors[f"{PROJ}.weights_scaling_factor"][2, 1]
    scales[[10, 11]] = scales[[11, 10]]


def swap_two_groups_of_zeros(tensors: Tensors) -> None:
    zero = tensors[f"{FC}.zero"][1]
    zero[[0, 1]] = zero[[1, 0]]


def swap_two_rows_of_the_router(tensors: Tensors) -> None:
    router = tensors[f"{LAYER}.mlp.router.weight"]
    router[[0, 1]] = router[[1, 0]]


def swap_two_tokens(tensors: Tensors) -> None:
    embedding = tensors["transformer.vocab_embedding.weight"]
    embedding[[500, 501]] = embedding[[501, 500]]


def swap_two_rows_of_the_head(tensors: Tensors) -> None:
    head = tensors["lm_head.weight"]
    head[[500, 501]] = head[[501, 500]]


TENSORS: list[Callable[[Tensors], None]] = [
    swap_two_bytes,
    swap_two_rows,
    swap_two_rows_of_attention,
    shuffle_all_but_the_sampled_rows,
    swap_nibbles_of_one_byte,
    swap_two_outputs,
    add_one_to_all_values,
    flip_a_nibble_of(f"{DENSE}.weight"),
    swap_experts,
    swap_one_projection,
    swap_gate_and_up,
    roll_scales,
    swap_two_scales,
    foreign_scales,
    swap_two_groups_of_zeros,
    negate_zero,
    gptq_zero,
    swap_two_rows_of_the_router,
    half_router,
    swap_two_tokens,
    swap_two_rows_of_the_head,
    swap_norms,
    other_frequencies,
    other_rotations,
    fewer_positions,
    pad_shape,
    drop_tensor,
    add_tensor,
]

CONVERTED: list[tuple[str, object]] = [
    ("logits_dtype", "float16"),
    ("position_embedding_type", "learned_absolute"),
    ("max_position_embeddings", 4096),
    ("rotary_scaling", {"type": "linear", "factor": 4.0}),
    ("rotary_pct", 0.5),
    ("attn_bias", True),
    ("residual_mlp", True),
    ("use_parallel_embedding", True),
    ("embedding_multiplier", 2.0),
    ("qk_layernorm", True),
    ("quantization.exclude_modules", ["*lm_head", "*dense"]),
    ("quantization.smoothquant_val", 0.6),
    ("quantization.clamp_val", [-1200.0, 1200.0]),
    ("mapping.cp_size", 2),
    ("tie_word_embeddings", True),
    ("share_embedding_table", True),
    ("moe.tp_mode", 1),
    ("norm_epsilon", 1e-6),
    ("head_size", 64),
    ("remove_duplicated_kv_heads", True),
    ("sliding_window_pattern", 4),
    ("moe.shared_expert", {"size": 128}),
    ("norm_epsilon", MISSING),
    ("moe", MISSING),
]

ENGINE: list[tuple[str, object]] = [
    ("build_config.plugin_config.moe_plugin", None),
    ("build_config.plugin_config.gpt_attention_plugin", None),
    ("build_config.plugin_config.gemm_plugin", None),
    ("build_config.plugin_config.context_fmha", False),
    ("build_config.plugin_config.multiple_profiles", False),
    ("build_config.gather_context_logits", True),
    ("build_config.gather_generation_logits", True),
    ("build_config.strongly_typed", False),
    ("pretrained_config.rotary_base", 10000.0),
    ("pretrained_config.hidden_act", "silu"),
    ("pretrained_config.moe.normalization_mode", 0),
    ("pretrained_config.quantization.kv_cache_quant_algo", "INT8"),
    ("pretrained_config.quantization.group_size", 128),
    ("pretrained_config.mapping.moe_tp_size", 4),
    ("pretrained_config.num_key_value_heads", 4),
    ("pretrained_config.logits_dtype", "float16"),
    ("build_config.max_batch_size", 8),
    ("build_config.max_num_tokens", 2048),
    ("build_config.max_seq_len", 256),
    ("build_config.max_beam_width", 4),
    ("build_config.kv_cache_type", "CONTINUOUS"),
    ("build_config.use_strip_plan", True),
    ("build_config.speculative_decoding_mode", 4),
    ("build_config.plugin_config.use_paged_context_fmha", False),
    ("build_config.plugin_config.tokens_per_block", 64),
    ("build_config.plugin_config.weight_only_groupwise_quant_matmul_plugin", None),
    ("build_config.plugin_config.lora_plugin", "float16"),
    ("build_config.plugin_config.sparse_attention", True),
    ("build_config.strongly_typed", MISSING),
    ("version", "1.2.0"),
]


def name_of(mutation: object) -> str:
    """The id of a test: the function's name, or the value."""
    return "missing" if mutation is MISSING else str(getattr(mutation, "__name__", mutation))


def change(fields: Fields, path: str, value: object) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        fields = fields[parent]
    if value is MISSING:
        del fields[name]
    else:
        fields[name] = value


def edit(file: Path, *changes: tuple[str, object]) -> None:
    fields = json.loads(file.read_text())
    for path, value in changes:
        change(fields, path, value)
    file.write_text(json.dumps(fields))


@pytest.fixture
def converted(tmp_path: Path, source: Checkpoint, convert: Convert) -> Callable[[int], Path]:
    """A correct conversion that the test may change."""
    return lambda tp_size: Path(shutil.copytree(convert(source, H100, tp_size), tmp_path / "converted"))


@pytest.fixture
def engine(tmp_path: Path, source: Checkpoint, convert: Convert) -> Callable[[int], Path]:
    """A correct engine that the test may change, made by the double of the builder."""

    def build(tp_size: int) -> Path:
        directory = tmp_path / "engine"
        directory.mkdir()
        cache = tmp_path / "timing.cache"
        _, *options = build_command(TOOLS, convert(source, H100, tp_size), directory, cache, LIMITS, tp_size)
        subprocess.run([sys.executable, TOOLS.trtllm_build, *options], check=True)
        return directory

    return build


def verify_problem(source: Checkpoint, directory: Path, tp_size: int) -> str:
    with pytest.raises(ConversionError) as refusal:
        verify(source, directory, tp_size, 90, lambda _: None)
    return str(refusal.value)


@pytest.mark.parametrize("tp_size", [1, 2])
@pytest.mark.parametrize("mutate", TENSORS, ids=name_of)
def test_a_changed_tensor_is_refused(
    source: Checkpoint, converted: Callable[[int], Path], mutate: Callable[[Tensors], None], tp_size: int
) -> None:
    file = converted(tp_size) / f"rank{tp_size - 1}.safetensors"
    tensors = {name: tensor.copy() for name, tensor in load_file(file).items()}
    mutate(tensors)
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, file)
    assert verify_problem(source, file.parent, tp_size).startswith(f"rank{tp_size - 1}.safetensors: ")


@pytest.mark.parametrize("tp_size", [1, 2])
@pytest.mark.parametrize(("path", "value"), CONVERTED, ids=name_of)
def test_a_changed_converted_config_is_refused(
    source: Checkpoint, converted: Callable[[int], Path], path: str, value: object, tp_size: int
) -> None:
    directory = converted(tp_size)
    edit(directory / "config.json", (path, value))
    found = verify_problem(source, directory, tp_size)
    if value is MISSING:
        assert found.startswith(f"config.json: {path}")
        assert " is missing; accepted: " in found
    else:
        assert found.startswith(f"config.json: {path} is {value!r}; accepted: ")


@pytest.mark.parametrize("tp_size", [1, 2])
@pytest.mark.parametrize(("path", "value"), ENGINE, ids=name_of)
def test_a_changed_engine_is_refused(
    source: Checkpoint, engine: Callable[[int], Path], path: str, value: object, tp_size: int
) -> None:
    directory = engine(tp_size)
    edit(directory / "config.json", (path, value))
    with pytest.raises(EngineError) as refusal:
        check_engine(directory, source.config, LIMITS, tp_size)
    is_what = "is missing" if value is MISSING else f"is {value!r}"
    assert str(refusal.value).startswith(f"engine config.json: {path} {is_what}; accepted: ")


def test_an_engine_of_another_size_than_asked_for(source: Checkpoint, engine: Callable[[int], Path]) -> None:
    directory = engine(2)
    with pytest.raises(EngineError, match=r"pretrained_config.mapping.world_size is 2; accepted: 1; \d+ more differ: "):
        check_engine(directory, source.config, LIMITS, 1)
    (directory / "rank1.engine").write_bytes(b"")
    with pytest.raises(EngineError, match=r"rank1\.engine: missing or empty; accepted: one engine for each of 2 ranks"):
        check_engine(directory, source.config, LIMITS, 2)


CORRECT_ENGINES: dict[str, list[tuple[str, object]]] = {
    "as the builder left it": [],
    "a patch release": [("version", "1.2.1.2604")],
    "a local build": [("version", "1.2.1+cu130")],
    "plugins in the model's dtype by name": [
        ("build_config.plugin_config.gpt_attention_plugin", "float16"),
        ("build_config.plugin_config.gemm_plugin", "float16"),
        ("build_config.plugin_config.moe_plugin", "float16"),
    ],
    "another timing cache": [("build_config.input_timing_cache", None)],
    "no field for mRoPE": [("build_config.use_mrope", MISSING)],
    "a split of attention that was left open": [("pretrained_config.mapping.attn_tp_size", -1)],
}


@pytest.mark.parametrize("tp_size", [1, 2])
@pytest.mark.parametrize("name", CORRECT_ENGINES)
def test_no_correct_engine_is_refused(
    source: Checkpoint, engine: Callable[[int], Path], name: str, tp_size: int
) -> None:
    directory = engine(tp_size)
    edit(directory / "config.json", *CORRECT_ENGINES[name])
    assert check_engine(directory, source.config, LIMITS, tp_size) == []


@pytest.mark.parametrize("value", [None, False, 0, "", [], {}, {"enabled": False, "size": 0}], ids=str)
def test_an_unknown_field_that_is_off_is_a_warning(
    source: Checkpoint, converted: Callable[[int], Path], engine: Callable[[int], Path], value: object
) -> None:
    checkpoint_dir, engine_dir = converted(1), engine(1)
    edit(checkpoint_dir / "config.json", ("quantization.new_option", value))
    edit(engine_dir / "config.json", ("build_config.new_option", value))
    said = f"new_option is {value!r}; this build does not know the field and ignores it"
    assert verify(source, checkpoint_dir, 1, 90, lambda _: None) == [f"config.json: quantization.{said}"]
    assert check_engine(engine_dir, source.config, LIMITS, 1) == [f"engine config.json: build_config.{said}"]


def test_several_differences_are_named_in_one_message(source: Checkpoint, converted: Callable[[int], Path]) -> None:
    directory = converted(1)
    edit(directory / "config.json", ("dtype", "bfloat16"), ("head_size", 64), ("new_option", 3))
    assert verify_problem(source, directory, 1) == (
        "config.json: dtype is 'bfloat16'; accepted: 'float16'; 2 more differ: head_size, new_option"
    )
