"""The nibble order of AutoAWQ's gemm layout, by examples and by properties."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from build_engine.awq import dequantize, pack_int4, unpack_int4, unpack_int4_by_channel

packed = npst.arrays(
    np.int32, st.tuples(st.integers(1, 4), st.integers(1, 4)), elements=npst.from_dtype(np.dtype("i4"))
)


def test_the_nibbles_of_a_word_hold_channels_0_2_4_6_1_3_5_7() -> None:
    channels = np.array([[0x0, 0x1, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7]], np.uint8)
    #                    nibble 7 6 5 4 3 2 1 0, and in each the channel of the same value
    word = np.array([[0x7_5_3_1_6_4_2_0]], np.int32)
    np.testing.assert_array_equal(pack_int4(channels), word)
    np.testing.assert_array_equal(unpack_int4(word), channels)


def test_the_sign_bit_belongs_to_channel_7() -> None:
    lowest = np.array([[-(2**31)]], np.int32)
    np.testing.assert_array_equal(unpack_int4(lowest), [[0, 0, 0, 0, 0, 0, 0, 8]])
    np.testing.assert_array_equal(pack_int4(np.full((1, 8), 15, np.uint8)), [[-1]])


@given(packed)
def test_packing_undoes_unpacking(words: NDArray[np.int32]) -> None:
    values = unpack_int4(words)
    assert values.dtype == np.uint8
    assert values.max() <= 15
    np.testing.assert_array_equal(pack_int4(values), words)


@given(npst.arrays(np.uint8, st.tuples(st.integers(1, 4), st.sampled_from([8, 16, 24])), elements=st.integers(0, 15)))
def test_unpacking_undoes_packing(values: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(unpack_int4(pack_int4(values)), values)


@given(packed)
def test_unpacking_by_channel_is_the_transpose(words: NDArray[np.int32]) -> None:
    values = unpack_int4_by_channel(words)
    assert values.flags.c_contiguous
    np.testing.assert_array_equal(values, unpack_int4(words).T)


def test_columns_that_are_not_contiguous_are_unpacked_alike() -> None:
    words = np.random.default_rng(0).integers(-(2**31), 2**31, (4, 6), dtype=np.int32)
    np.testing.assert_array_equal(unpack_int4(words[:, ::2]), unpack_int4(words[:, ::2].copy()))


def test_a_weight_is_value_minus_zero_point_times_scale_of_its_group() -> None:
    values = np.arange(4, dtype=np.uint8).repeat(8).reshape(4, 8)
    zeros = np.array([[1] * 8, [5] * 8], np.uint8)
    scales = np.array([[0.5] * 8, [2.0] * 8], np.float16)
    weight = dequantize(pack_int4(values), pack_int4(zeros), scales)
    np.testing.assert_array_equal(weight[:, 0], [-0.5, 0.0, -6.0, -4.0])
