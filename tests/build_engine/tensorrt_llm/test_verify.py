"""The mistakes that `verify` finds in a converted checkpoint, and their messages."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from build_engine.checkpoint import Checkpoint, open_checkpoint
from build_engine.errors import ConversionError
from build_engine.tensorrt_llm.verify import verify
from tests.build_engine.tensorrt_llm.conftest import A100, H100, SPLITTABLE, Convert
from tests.tiny_mixtral import tiny_tensors, write_checkpoint

Tensors = dict[str, NDArray[Any]]

LAYER = "transformer.layers.1"


@pytest.fixture
def spoilt(tmp_path: Path, source: Checkpoint, convert: Convert) -> Callable[[Callable[[Tensors], None], int], Path]:
    """A converted checkpoint for an H100, its last rank's tensors changed by a function."""

    def spoil(mutate: Callable[[Tensors], None], tp_size: int = 1) -> Path:
        directory = tmp_path / "spoilt"
        shutil.copytree(convert(source, H100, tp_size), directory)
        file = directory / f"rank{tp_size - 1}.safetensors"
        tensors = {name: tensor.copy() for name, tensor in load_file(file).items()}
        mutate(tensors)
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, file)
        return directory

    return spoil


def problem(source: Checkpoint, directory: Path, tp_size: int = 1, sm: int = 90) -> str:
    with pytest.raises(ConversionError) as refusal:
        verify(source, directory, tp_size, sm, lambda _: None)
    return str(refusal.value)


@pytest.mark.parametrize("tp_size", [1, 2])
@pytest.mark.parametrize(("gpu", "sm"), [(H100, 90), (A100, 80)])
def test_a_faithful_conversion_passes(source: Checkpoint, convert: Convert, gpu: str, sm: int, tp_size: int) -> None:
    layers: list[int] = []
    assert verify(source, convert(source, gpu, tp_size), tp_size, sm, layers.append) == []
    assert layers == [1, 1]


def plain_weights_as(dtype: Any, *, names: str) -> Callable[[Tensors], None]:
    """Random values that float16 cannot hold, for the plain weights whose names end with `names`."""

    def cast(tensors: Tensors) -> None:
        rng = np.random.default_rng(7)
        for name, tensor in tensors.items():
            if name.endswith(names) and tensor.dtype == np.float16:
                tensors[name] = (2.0**-14 * rng.standard_normal(tensor.shape)).astype(dtype)

    return cast


def nothing(_: Tensors) -> None:
    """The tensors of the tiny Mixtral as they are."""


VARIANTS: dict[str, tuple[dict[str, Any], Callable[[Tensors], None]]] = {
    "a sliding window": ({"sliding_window": 4096}, nothing),
    "a sliding window that is longer than the positions": ({"sliding_window": 65536}, nothing),
    "a router in BF16": ({}, plain_weights_as(ml_dtypes.bfloat16, names="gate.weight")),
    "a router in F32": ({}, plain_weights_as(np.float32, names="gate.weight")),
    "all plain weights in BF16": ({}, plain_weights_as(ml_dtypes.bfloat16, names=".weight")),
    "a vocabulary of 32,002": ({"vocab_size": 32002}, nothing),
    "a vocabulary of 32,001, which two ranks pad": ({"vocab_size": 32001}, nothing),
    "131,072 positions": ({"max_position_embeddings": 131072}, nothing),
    "a head_dim of its own": ({"head_dim": 64}, nothing),
}
"""Config fields and a change of the tensors of checkpoints that convert correctly."""


@pytest.fixture(scope="session")
def variant(tmp_path_factory: pytest.TempPathFactory, mixtral_tokenizer_dir: Path) -> Callable[[str], Checkpoint]:
    """The checkpoint of a variant by its name."""
    done: dict[str, Checkpoint] = {}

    def make(name: str) -> Checkpoint:
        if name not in done:
            fields, change = VARIANTS[name]
            config = {**SPLITTABLE, **fields}
            tensors = tiny_tensors(config)
            change(tensors)
            directory = tmp_path_factory.mktemp("variant") / "mixtral"
            done[name] = open_checkpoint(write_checkpoint(directory, config, tensors, mixtral_tokenizer_dir))
        return done[name]

    return make


@pytest.mark.parametrize("tp_size", [1, 2])
@pytest.mark.parametrize("name", VARIANTS)
def test_no_correct_conversion_is_refused(
    variant: Callable[[str], Checkpoint], convert: Convert, name: str, tp_size: int
) -> None:
    checkpoint = variant(name)
    assert verify(checkpoint, convert(checkpoint, H100, tp_size), tp_size, 90, lambda _: None) == []


def test_a_router_that_went_through_float16_is_found(
    variant: Callable[[str], Checkpoint], convert: Convert, tmp_path: Path
) -> None:
    checkpoint = variant("a router in F32")
    directory = Path(shutil.copytree(convert(checkpoint, H100, 1), tmp_path / "spoilt"))
    tensors = load_file(directory / "rank0.safetensors")
    name = f"{LAYER}.mlp.router.weight"
    tensors[name] = tensors[name].astype(np.float16).astype(np.float32)
    save_file(tensors, directory / "rank0.safetensors")
    assert f"{name} is not the source's" in problem(checkpoint, directory)


def swap_experts(tensors: Tensors) -> None:
    for name in list(tensors):
        if name.startswith(f"{LAYER}.mlp") and "router" not in name:
            tensors[name][[1, 2]] = tensors[name][[2, 1]]


def swap_one_projection(tensors: Tensors) -> None:
    for part in ("weight", "weights_scaling_factor", "zero"):
        tensors[f"{LAYER}.mlp.proj.{part}"][[0, 3]] = tensors[f"{LAYER}.mlp.proj.{part}"][[3, 0]]


def swap_gate_and_up(tensors: Tensors) -> None:
    """Halves of the columns. Of the interleaved bytes, each four columns are contiguous, so halves stay halves."""
    for part in ("weights_scaling_factor", "zero"):
        name = f"{LAYER}.mlp.fc.{part}"
        tensors[name] = np.roll(tensors[name], tensors[name].shape[-1] // 2, axis=-1)
    weight = tensors[f"{LAYER}.mlp.fc.weight"]
    flat = weight.reshape(len(weight), -1)
    tensors[f"{LAYER}.mlp.fc.weight"] = np.roll(flat, flat.shape[1] // 2, axis=1).reshape(weight.shape)


def flip_a_nibble_of(name: str) -> Callable[[Tensors], None]:
    def flip(tensors: Tensors) -> None:
        tensors[name].reshape(-1).view(np.uint8)[1234] ^= 0x40

    return flip


def roll_scales(tensors: Tensors) -> None:
    name = f"{LAYER}.attention.qkv.weights_scaling_factor"
    tensors[name] = np.roll(tensors[name], 1, axis=0)


def foreign_scales(tensors: Tensors) -> None:
    tensors[f"{LAYER}.mlp.fc.weights_scaling_factor"][2, 1] *= np.float16(1.01)


def negate_zero(tensors: Tensors) -> None:
    tensors[f"{LAYER}.mlp.fc.zero"] *= np.float16(-1)


def gptq_zero(tensors: Tensors) -> None:
    tensors[f"{LAYER}.attention.dense.zero"] -= tensors[f"{LAYER}.attention.dense.weights_scaling_factor"]


def pad_shape(tensors: Tensors) -> None:
    name = f"{LAYER}.mlp.proj.weight"
    tensors[name] = np.pad(tensors[name], ((0, 0), (0, 64), (0, 0)))


def drop_tensor(tensors: Tensors) -> None:
    del tensors[f"{LAYER}.attention.dense.zero"]


def add_tensor(tensors: Tensors) -> None:
    tensors[f"{LAYER}.mlp.fc.prequant_scaling_factor"] = np.ones(128, np.float16)


def half_router(tensors: Tensors) -> None:
    tensors[f"{LAYER}.mlp.router.weight"] = tensors[f"{LAYER}.mlp.router.weight"].astype(np.float16)


def swap_norms(tensors: Tensors) -> None:
    names = [f"{LAYER}.{name}.weight" for name in ("input_layernorm", "post_layernorm")]
    tensors[names[0]], tensors[names[1]] = tensors[names[1]], tensors[names[0]]


def other_frequencies(tensors: Tensors) -> None:
    tensors["rotary_inv_freq"] **= np.float32(2 / 3)  # of rope_theta 10000


def other_rotations(tensors: Tensors) -> None:
    name = "embed_positions_for_gpt_attention"
    tensors[name] = tensors[name].reshape(-1, 2)[:, ::-1].reshape(1, -1)


def fewer_positions(tensors: Tensors) -> None:
    tensors["embed_positions"] = tensors["embed_positions"][:, :4096]


@pytest.mark.parametrize("tp_size", [1, 2])
@pytest.mark.parametrize(
    ("mutate", "message"),
    [
        (swap_experts, f"{LAYER}.mlp.fc expert 1 holds expert 2 of the source"),
        (swap_one_projection, f"{LAYER}.mlp.proj expert 0 holds expert 3 of the source"),
        (swap_gate_and_up, f"{LAYER}.mlp.fc expert 0 has gate (w1) before up (w3); accepted: up first"),
        (flip_a_nibble_of(f"{LAYER}.mlp.fc.weight"), f"{LAYER}.mlp.fc expert 0 has 1 "),
        (flip_a_nibble_of(f"{LAYER}.attention.qkv.weight"), f"{LAYER}.attention.qkv has 1 "),
        (roll_scales, f"{LAYER}.attention.qkv weights_scaling_factor of group 0 is that of group 1"),
        (foreign_scales, f"{LAYER}.mlp.fc expert 2 weights_scaling_factor of group 1 is not the source's"),
        (negate_zero, f"{LAYER}.mlp.fc expert 0 zero has the opposite sign"),
        (gptq_zero, f"{LAYER}.attention.dense zero is one step off, as for GPTQ checkpoints"),
        (pad_shape, "; the converter padded it"),
        (drop_tensor, f"tensor {LAYER}.attention.dense.zero is missing; accepted: F16"),
        (add_tensor, f"tensor {LAYER}.mlp.fc.prequant_scaling_factor is no part of a Mixtral in W4A16_GPTQ"),
        (half_router, f"tensor {LAYER}.mlp.router.weight is F16 [4, 128]; accepted: F32 [4, 128]"),
        (other_frequencies, "rotary_inv_freq is not of rope_theta 1000000.0"),
        (other_rotations, "embed_positions_for_gpt_attention is not of rope_theta 1000000.0"),
        (fewer_positions, "tensor embed_positions is F32 [1, 4096, 32]; accepted: F32 [1, 8192, 32]"),
        (swap_norms, f"{LAYER}.input_layernorm.weight is not the source's model.layers.1.input_layernorm.weight"),
    ],
)
def test_each_mistake_has_its_own_message(
    source: Checkpoint,
    spoilt: Callable[[Callable[[Tensors], None], int], Path],
    mutate: Callable[[Tensors], None],
    message: str,
    tp_size: int,
) -> None:
    found = problem(source, spoilt(mutate, tp_size), tp_size)
    assert message in found
    assert found.startswith(f"rank{tp_size - 1}.safetensors: ")


@pytest.mark.parametrize(
    ("made_on", "sm", "message"),
    [
        (A100, 90, "attention.qkv is laid out for GPUs before SM 90, not for this GPU's SM 90"),
        (H100, 80, "attention.qkv is laid out for SM 90, not for this GPU's SM 80"),
    ],
)
def test_the_layout_of_another_gpu(source: Checkpoint, convert: Convert, made_on: str, sm: int, message: str) -> None:
    assert message in problem(source, convert(source, made_on, 1), sm=sm)


def test_constants_that_the_builder_makes_by_itself_may_be_missing(
    source: Checkpoint, spoilt: Callable[[Callable[[Tensors], None], int], Path]
) -> None:
    def leave_out(tensors: Tensors) -> None:
        for name in ("embed_positions", "rotary_inv_freq", "embed_positions_for_gpt_attention"):
            del tensors[name]

    verify(source, spoilt(leave_out, 1), 1, 90, lambda _: None)


def test_a_missing_rank(source: Checkpoint, spoilt: Callable[[Callable[[Tensors], None], int], Path]) -> None:
    directory = spoilt(lambda _: None, 2)
    (directory / "rank1.safetensors").unlink()
    assert problem(source, directory, 2) == "rank1.safetensors: missing; accepted: one file for each of 2 ranks"


def test_a_truncated_rank(source: Checkpoint, spoilt: Callable[[Callable[[Tensors], None], int], Path]) -> None:
    directory = spoilt(lambda _: None, 1)
    file = directory / "rank0.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    assert "rank0.safetensors: truncated or not a safetensors file" in problem(source, directory)


def test_ranks_in_each_others_place(
    source: Checkpoint, spoilt: Callable[[Callable[[Tensors], None], int], Path]
) -> None:
    directory = spoilt(lambda _: None, 2)
    (directory / "rank0.safetensors").rename(directory / "other")
    (directory / "rank1.safetensors").rename(directory / "rank0.safetensors")
    (directory / "other").rename(directory / "rank1.safetensors")
    assert "rank0.safetensors: lm_head.weight is not the source's lm_head.weight" in problem(source, directory, 2)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("quantization.quant_algo", None, "the converter dropped the quantisation silently"),
        ("quantization.quant_algo", "W4A16_AWQ", "quantization.quant_algo is 'W4A16_AWQ'; accepted: 'W4A16_GPTQ'"),
        ("quantization.pre_quant_scale", True, "quantization.pre_quant_scale is True; accepted: False"),
        ("quantization.has_zero_point", False, "quantization.has_zero_point is False; accepted: True"),
        ("quantization.group_size", 128, "quantization.group_size is 128; accepted: 64"),
        ("hidden_act", "silu", "hidden_act is 'silu'; accepted: 'swiglu'"),
        ("dtype", "bfloat16", "dtype is 'bfloat16'; accepted: 'float16'"),
        ("rotary_base", 10000.0, "rotary_base is 10000.0; accepted: 1000000.0"),
        ("moe.top_k", 1, "moe.top_k is 1; accepted: 2"),
        ("mapping.moe_ep_size", 2, "mapping.moe_ep_size is 2; accepted: 1"),
    ],
)
def test_a_config_that_is_another_models(
    source: Checkpoint,
    spoilt: Callable[[Callable[[Tensors], None], int], Path],
    path: str,
    value: object,
    message: str,
) -> None:
    directory = spoilt(lambda _: None, 1)
    fields = json.loads((directory / "config.json").read_text())
    *parents, name = path.split(".")
    target = fields
    for parent in parents:
        target = target[parent]
    target[name] = value
    (directory / "config.json").write_text(json.dumps(fields))
    assert message in problem(source, directory)
