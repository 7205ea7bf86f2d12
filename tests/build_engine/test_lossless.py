"""A published engine holds exactly the checkpoint's weights. The oracle is a formula of its own, not `awq`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from build_engine.__main__ import main
from build_engine.openvino.weights import MODEL_XML
from tests.build_engine.workplace import SMALL, CheckpointDir, Repository

Arrays: TypeAlias = dict[str, NDArray[Any]]

GROUP_SIZE = SMALL["quantization_config"]["group_size"]
EXPERTS = range(SMALL["num_local_experts"])
LAYERS = range(SMALL["num_hidden_layers"])
_HEAD_DIM = SMALL["hidden_size"] // SMALL["num_attention_heads"]
_QUERIES, _KEYS = (SMALL[f"num_{kind}_heads"] * _HEAD_DIM for kind in ("attention", "key_value"))
OUTPUTS = {"q_proj": _QUERIES, "k_proj": _KEYS, "v_proj": _KEYS}
OUTPUTS |= {"w1": SMALL["intermediate_size"], "w3": SMALL["intermediate_size"]}
"""Of linears that are stacked with others."""
LINEARS = [f"model.layers.{n}.self_attn.{kind}" for n in LAYERS for kind in ("q_proj", "k_proj", "v_proj", "o_proj")]
LINEARS += [
    f"model.layers.{n}.block_sparse_moe.experts.{expert}.{kind}"
    for n in LAYERS
    for expert in EXPERTS
    for kind in ("w1", "w2", "w3")
]


def nibble(words: NDArray[np.int32], row: int, channel: int) -> int:
    """The 4-bit value of an output channel: eight channels to a word, the even ones before the odd ones."""
    place = channel % 8
    shift = 4 * (place // 2 + 4 * (place % 2))
    return int(words[row, channel // 8]) >> shift & 15


def nibbles(words: NDArray[np.int32]) -> NDArray[np.uint8]:
    """[rows, words] -> [rows, channels], one by one."""
    rows, columns = words.shape
    values = [[nibble(words, row, channel) for channel in range(columns * 8)] for row in range(rows)]
    return np.array(values, np.uint8)


@pytest.fixture(scope="module")
def stored(pristine_checkpoint: Path) -> Arrays:
    """Every tensor of the checkpoint."""
    return {name: t for file in pristine_checkpoint.glob("*.safetensors") for name, t in load_file(file).items()}


@pytest.fixture(scope="module")
def constants(tmp_path_factory: pytest.TempPathFactory, pristine_checkpoint: Path) -> Arrays:
    """Every weight of the engine that is built from it, as OpenVINO reads it."""
    repository = Repository(tmp_path_factory.mktemp("lossless") / "model_repository")
    repository.create()
    assert main(repository.build(CheckpointDir(pristine_checkpoint))) == 0
    return weights_of(repository)


def weights_of(repository: Repository) -> Arrays:
    """The tensors by their names in the checkpoint; 4-bit ones as one byte per value."""
    model = ov.Core().read_model(repository.engine / MODEL_XML)
    named = [op for op in model.get_ops() if op.get_type_name() == "Constant" and "." in op.get_friendly_name()]
    return {name: tensor for op in named for name, tensor in parts_of(op.get_friendly_name(), values_of(op))}


def parts_of(names: str, values: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    """The tensors that are stacked in one constant, by their numbers of output channels."""
    begin = 0
    for name in names.split("+"):
        num_rows = OUTPUTS.get(name.split(".")[-2], len(values))
        yield name, values[begin : begin + num_rows]
        begin += num_rows
    assert begin == len(values)


def values_of(constant: Any) -> NDArray[Any]:
    if constant.get_element_type() != ov.Type.u4:
        assert constant.get_element_type() == ov.Type.f16
        return np.array(constant.data)
    packed = np.array(constant.data).view(np.uint8).reshape(-1)
    values: NDArray[Any] = np.stack([packed & 15, packed >> 4], axis=-1)
    return values.reshape(list(constant.shape))


def expected_groups(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[inputs, outputs] as the engine keeps it: [outputs, groups, group_size]."""
    inputs, outputs = values.shape
    return values.T.reshape(outputs, inputs // GROUP_SIZE, GROUP_SIZE)


def test_the_engine_holds_every_weight_and_no_other(constants: Arrays, stored: Arrays) -> None:
    assert constants.keys() == stored.keys()


@pytest.mark.parametrize("name", LINEARS)
def test_values_zero_points_and_scales_of_linears_are_kept(constants: Arrays, stored: Arrays, name: str) -> None:
    np.testing.assert_array_equal(constants[f"{name}.qweight"], expected_groups(nibbles(stored[f"{name}.qweight"])))
    np.testing.assert_array_equal(constants[f"{name}.qzeros"][..., 0], nibbles(stored[f"{name}.qzeros"]).T)
    np.testing.assert_array_equal(constants[f"{name}.scales"][..., 0], stored[f"{name}.scales"].T)


def test_plain_weights_are_kept(constants: Arrays, stored: Arrays) -> None:
    plain = [name for name in stored if name.endswith(".weight")]
    assert len(plain) == 3 + 3 * len(LAYERS)
    for name in plain:
        assert constants[name].dtype == np.float16
        np.testing.assert_array_equal(constants[name], stored[name])


def test_bfloat16_weights_are_kept(
    succeed: Callable[[list[str]], str], repository: Repository, checkpoint: CheckpointDir
) -> None:
    name = "model.layers.1.block_sparse_moe.gate.weight"
    values = checkpoint.tensor(name).astype(ml_dtypes.bfloat16)
    checkpoint.store(name, values)
    succeed(repository.build(checkpoint))
    np.testing.assert_array_equal(weights_of(repository)[name].astype(np.float32), values.astype(np.float32))
