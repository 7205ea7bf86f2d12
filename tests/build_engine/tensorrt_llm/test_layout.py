"""The order of 4-bit weights, computed in two independent ways, and the tensors of each rank."""

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from build_engine.awq import pack_int4, unpack_int4
from build_engine.awq_linear import AwqLinear
from build_engine.mixtral import to_mixtral_config
from build_engine.tensorrt_llm.compare import value_difference
from build_engine.tensorrt_llm.gpus import is_interleaved
from build_engine.tensorrt_llm.layout import channel_bytes, input_order, rank_tensors, split_problem
from build_engine.tensorrt_llm.trtllm_checkpoint import PackedLinear
from tests.build_engine.tensorrt_llm.test_plan import MIXTRAL_8X7B
from tests.doubles.staged_layout import Uint8, pack, preprocess, unpack_awq


def closed_form(values: Uint8, *, interleaved: bool) -> Uint8:
    """All bytes of a converted matrix, by the verifier's order of inputs and its place of each output's bytes."""
    inputs, outputs = values.shape
    by_output = values[input_order(inputs)].T
    packed = np.zeros((inputs, outputs // 2), np.uint8)
    for channel in range(8):
        place = channel_bytes(packed, channel, interleaved=interleaved)
        place[:] = pack(np.ascontiguousarray(by_output[channel::8])).reshape(place.shape)
    return packed


INTERLEAVED = "58e21605a856bba1ce6b977f91d0e948e1ad026d220716e1ce59ade7b59609da"
PLAIN = "5f4425d4173f9b2ae958c70dcd59776437c642a4624b726ccee1ec9f03af454b"
"""sha256 of the bytes of LARGE in both layouts, from a third implementation."""
ONE_TILE = "5280b52884c49419d6bbfab53ac3aecb496c9a9c0db061440cff4cb90bb5f6d7"
"""The same of SMALL, which is a single tile, so that both layouts are equal."""

K, N = np.mgrid[:256, :64]
LARGE = ((7 * K + 5 * N + K * N) % 16).astype(np.uint8)
SMALL = ((K[:64, :8] + 3 * N[:64, :8]) % 16).astype(np.uint8)


@pytest.mark.parametrize(
    ("values", "sm", "expected"),
    [(LARGE, 80, INTERLEAVED), (LARGE, 90, PLAIN), (SMALL, 80, ONE_TILE), (SMALL, 90, ONE_TILE)],
)
def test_both_ways_give_the_known_bytes(values: Uint8, sm: int, expected: str) -> None:
    staged = preprocess(values, sm, stacked=False)
    assert hashlib.sha256(staged.tobytes()).hexdigest() == expected
    formula = closed_form(values, interleaved=is_interleaved(sm, expert=False))
    assert hashlib.sha256(formula.tobytes()).hexdigest() == expected


def test_first_bytes_are_the_known_ones() -> None:
    for sm in (80, 90):
        assert preprocess(LARGE, sm, stacked=False).tobytes()[:16].hex() == "8080f7f76e6ed5d54c4cb3b32a2a9191"


@settings(deadline=None, max_examples=30)
@given(tiles=st.integers(1, 5), octets=st.integers(1, 9), sm=st.sampled_from([80, 86, 89, 90]), expert=st.booleans())
def test_staged_and_closed_form_agree(tiles: int, octets: int, sm: int, expert: bool) -> None:
    values = np.random.default_rng(tiles * octets).integers(0, 16, (64 * tiles, 8 * octets), dtype=np.uint8)
    staged = preprocess(values, sm, stacked=expert)
    assert np.array_equal(staged, closed_form(values, interleaved=is_interleaved(sm, expert=expert)))


@pytest.mark.parametrize("interleaved", [True, False])
def test_every_value_has_one_place(interleaved: bool) -> None:
    assert np.array_equal(np.sort(input_order(128)), np.arange(128))
    packed = np.zeros((128, 12), np.uint8)
    for channel in range(8):
        channel_bytes(packed, channel, interleaved=interleaved)[:] += np.uint8(1)
    assert (packed == 1).all()


def test_experts_keep_the_ampere_layout_on_hopper() -> None:
    assert [is_interleaved(sm, expert=True) for sm in (80, 86, 89, 90)] == [True] * 4
    assert [is_interleaved(sm, expert=False) for sm in (80, 86, 89, 90)] == [True, True, True, False]


def test_two_readings_of_awq_packing_agree() -> None:
    values = np.random.default_rng(0).integers(0, 16, (4, 32), dtype=np.uint8)
    packed = pack_int4(values)
    assert np.array_equal(unpack_awq(packed), values)
    assert np.array_equal(unpack_int4(packed), values)


RANDOM = np.random.default_rng(1).integers(0, 16, (1024, 1040), dtype=np.uint8)
"""130 groups of eight outputs: compared in three blocks, the last of them short."""


def difference(packed: Uint8, *, interleaved: bool) -> str | None:
    """What the verifier says of a converted matrix that should be that of RANDOM."""
    grid = np.ones((8, 1040), np.float16)
    source = AwqLinear(pack_int4(RANDOM), pack_int4(RANDOM[:8]), grid)
    return value_difference(PackedLinear(packed, grid, grid), source, interleaved=interleaved)


@pytest.mark.parametrize("sm", [80, 90])
def test_a_faithful_matrix_has_no_difference(sm: int) -> None:
    packed = preprocess(RANDOM, sm, stacked=False)
    assert difference(packed, interleaved=sm == 80) is None
    assert difference(packed, interleaved=sm == 90) is not None


@settings(deadline=None, max_examples=50)
@given(row=st.integers(0, 1023), column=st.integers(0, 519), bit=st.integers(0, 7), sm=st.sampled_from([80, 90]))
def test_every_bit_is_compared(row: int, column: int, bit: int, sm: int) -> None:
    packed = preprocess(RANDOM, sm, stacked=False)
    packed[row, column] ^= np.uint8(1 << bit)
    assert difference(packed, interleaved=sm == 80) == f"has 1 of {1024 * 1040} 4-bit values that are not the source's"


def swap_bytes(packed: Uint8) -> None:
    packed[600, [10, 11]] = packed[600, [11, 10]]


def swap_rows(packed: Uint8) -> None:
    packed[[600, 777]] = packed[[777, 600]]


def shuffle(packed: Uint8) -> None:
    np.random.default_rng(2).shuffle(packed[100:900].reshape(-1))


def swap_nibbles(packed: Uint8) -> None:
    packed[600] = (packed[600] << 4) | (packed[600] >> 4)


@pytest.mark.parametrize("sm", [80, 90])
@pytest.mark.parametrize("move", [swap_bytes, swap_rows, shuffle, swap_nibbles])
def test_values_that_only_changed_places_are_found(move: Callable[[Uint8], None], sm: int) -> None:
    packed = preprocess(RANDOM, sm, stacked=False)
    move(packed)
    assert "4-bit values that are not the source's" in str(difference(packed, interleaved=sm == 80))


# Mixtral-8x7B on n GPUs: qkv has 4096 + 2 x 1024 columns, fc twice 14336, packed four to a float16; groups of 128.
@pytest.mark.parametrize(
    ("tp_size", "qkv", "dense", "fc", "proj", "head"),
    [
        (1, (4096, 1536), (4096, 1024), (8, 4096, 7168), (8, 14336, 1024), (32000, 4096)),
        (2, (4096, 768), (2048, 1024), (8, 4096, 3584), (8, 7168, 1024), (16000, 4096)),
        (4, (4096, 384), (1024, 1024), (8, 4096, 1792), (8, 3584, 1024), (8000, 4096)),
        (8, (4096, 192), (512, 1024), (8, 4096, 896), (8, 1792, 1024), (4000, 4096)),
    ],
)
def test_shapes_per_rank(
    tp_size: int,
    qkv: tuple[int, ...],
    dense: tuple[int, ...],
    fc: tuple[int, ...],
    proj: tuple[int, ...],
    head: tuple[int, ...],
) -> None:
    specs = rank_tensors(to_mixtral_config(MIXTRAL_8X7B), tp_size)
    shapes = {name.removeprefix("transformer.layers.31."): spec.shape for name, spec in specs.items()}
    assert shapes["attention.qkv.weight"] == qkv
    assert shapes["attention.dense.weight"] == dense
    assert shapes["mlp.fc.weight"] == fc
    assert shapes["mlp.proj.weight"] == proj
    assert shapes["lm_head.weight"] == head
    assert shapes["attention.qkv.zero"] == (32, 6144 // tp_size)
    assert shapes["attention.dense.weights_scaling_factor"] == (32 // tp_size, 4096)
    assert shapes["mlp.fc.weights_scaling_factor"] == (8, 32, 28672 // tp_size)
    assert shapes["mlp.proj.zero"] == (8, 112 // tp_size, 4096)
    assert specs["transformer.layers.0.mlp.router.weight"].dtypes == ("F32",)
    assert specs["transformer.vocab_embedding.weight"].shape == (32000, 4096)
    assert len(specs) == 3 + 32 * 15


def test_only_splits_that_the_kernels_and_the_heads_allow() -> None:
    config = to_mixtral_config(MIXTRAL_8X7B)
    assert [split_problem(config, tp_size) for tp_size in (1, 2, 4, 8)] == [None] * 4
    assert split_problem(config, 3) == "tensor_parallel_size is 3; accepted: 1, 2, 4 or 8"
