"""Compare one converted linear with the AutoAWQ linear it was made from. Pure.

Every 4-bit value, scale and zero is compared. The converter only moves the 4-bit values, so the source's are put into
its order, a block of outputs at a time: about 50 ms for the 59 million values of one linear of a Mixtral-8x7B.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from build_engine.awq import PACK_ORDER, Float16, Int32, Int64, Uint8
from build_engine.awq_linear import AwqLinear
from build_engine.mixtral import PACK_FACTOR

from .layout import channel_bytes, input_order
from .trtllm_checkpoint import PackedLinear

_OCTETS = 64
"""Groups of eight outputs that are compared at once: few enough for the processor's cache."""
_LOW, _HIGH = np.uint32(0x0F0F0F0F), np.uint32(0xF0F0F0F0)
"""The low and the high nibbles of the four bytes in a word."""
_SIGN_OFFSET = 8
"""Subtracted from AutoAWQ's unsigned values to make them signed; part of `zero`, as the kernel computes
value * scale + zero."""
_FLOAT16_STEP = 2.0**-10
"""Relative tolerance: a float16 product may have been rounded once more or once less."""

Candidates = Iterable[tuple[str, AwqLinear, bool]]
"""Other sources that a converted linear may have been made from by mistake: (the mistake, source, interleaved)."""


def value_difference(found: PackedLinear, source: AwqLinear, *, interleaved: bool) -> str | None:
    """How the 4-bit values differ, or None."""
    if different := _different_values(found, source, interleaved):
        return f"has {different} of {source.inputs * source.outputs} 4-bit values that are not the source's"
    return None


def grid_difference(found: PackedLinear, source: AwqLinear) -> str | None:
    """How the scales or the zeros differ, or None."""
    return _scale_difference(found, source) or _zero_difference(found, source)


def explain(found: PackedLinear, candidates: Candidates) -> str | None:
    """What is wrong, by the first candidate that has these values, or None."""
    for meaning, source, interleaved in candidates:
        if not _different_values(found, source, interleaved):
            return meaning
    return None


def _different_values(found: PackedLinear, source: AwqLinear, interleaved: bool) -> int:
    """How many of the K x N values differ."""
    channels = [channel_bytes(found.packed, channel, interleaved=interleaved) for channel in range(PACK_FACTOR)]
    order = input_order(source.inputs)
    different = 0
    for first in range(0, source.outputs // PACK_FACTOR, _OCTETS):
        octets = slice(first, first + _OCTETS)
        for channel, expected in _expected_bytes(source.qweight[:, octets], order):
            part = channels[channel][octets]
            wrong = expected.reshape(part.shape) ^ part
            if wrong.any():
                different += np.count_nonzero(wrong & np.uint8(15)) + np.count_nonzero(wrong >> np.uint8(4))
    return different


def _expected_bytes(qweight: Int32, order: Int64) -> Iterator[tuple[int, Uint8]]:
    """(channel, uint8 [N/8, K/2]) of each of the eight channels in the words of `qweight` int32 [K, N/8].

    A byte of a converted matrix joins two inputs of one output, which are the same nibble of two words of AutoAWQ. So
    words are joined, four bytes at a time: their even nibbles, then their odd ones.
    """
    words = qweight.view(np.uint32)
    low, high = (np.ascontiguousarray(words[inputs].T) for inputs in (order[0::2], order[1::2]))
    even = (low & _LOW) | ((high & _LOW) << np.uint32(4))
    odd = ((low & _HIGH) >> np.uint32(4)) | (high & _HIGH)
    for parity, joined in enumerate((even, odd)):
        by_byte = joined.view(np.uint8).reshape(*joined.shape, 4)
        for byte in range(4):
            yield PACK_ORDER[2 * byte + parity], by_byte[..., byte]


def _scale_difference(found: PackedLinear, source: AwqLinear) -> str | None:
    scales = found.weights_scaling_factor
    if np.array_equal(scales, source.scales):
        return None
    group = int(np.argmax((scales != source.scales).any(axis=1)))
    for other in range(len(source.scales)):
        if np.array_equal(scales[group], source.scales[other]):
            return f"weights_scaling_factor of group {group} is that of group {other}"
    return f"weights_scaling_factor of group {group} is not the source's"


def _zero_difference(found: PackedLinear, source: AwqLinear) -> str | None:
    expected = _expected_zero(source, _SIGN_OFFSET)
    if _close(found.zero, expected):
        return None
    if _close(found.zero, -expected):
        return "zero has the opposite sign"
    if _close(found.zero, _expected_zero(source, _SIGN_OFFSET - 1)):
        return "zero is one step off, as for GPTQ checkpoints, whose stored zeros are one less"
    return "zero is not (8 - the source's zero) * scale"


def _expected_zero(source: AwqLinear, offset: int) -> Float16:
    shifted = (offset - source.zeros().astype(np.int16)).astype(np.float32)
    return (shifted * source.scales.astype(np.float32)).astype(np.float16)


def _close(found: Float16, expected: Float16) -> bool:
    difference: NDArray[np.float32] = np.abs(found.astype(np.float32) - expected.astype(np.float32))
    return bool((difference <= _FLOAT16_STEP * np.abs(expected.astype(np.float32))).all())
