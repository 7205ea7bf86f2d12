"""Compare one converted linear with the AutoAWQ linear it was made from. Pure.

Every scale and zero is compared, and all 4-bit values by their counts: the converter only moves them. A sample of rows
is compared value by value with the closed form of the layout.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from build_engine.awq import Float16, Int64, Uint8
from build_engine.awq_linear import AwqLinear

from .layout import source_positions
from .trtllm_checkpoint import PackedLinear

SAMPLED_ROWS = 32
"""Rows of a converted matrix that are compared value by value. A wrong layout shows in any row, a single wrong value in
the counts. With 32, the 832 matrices of a Mixtral-8x7B take some minutes on one core."""
_SIGN_OFFSET = 8
"""Subtracted from AutoAWQ's unsigned values to make them signed; part of `zero`, as the kernel computes
value * scale + zero."""
_FLOAT16_STEP = 2.0**-10
"""Relative tolerance: a float16 product may have been rounded once more or once less."""

Candidates = Iterable[tuple[str, AwqLinear, bool]]
"""Other sources that a converted linear may have been made from by mistake: (the mistake, source, interleaved)."""


def value_difference(found: PackedLinear, source: AwqLinear, *, interleaved: bool, seed: int) -> str | None:
    """How the 4-bit values differ, or None. `seed` chooses the sample."""
    rows = _sample(source.inputs, seed)
    if different := _different_values(found, source, rows, interleaved):
        return f"has {different} of {rows.size * source.outputs} sampled 4-bit values that are not the source's"
    if moved := _moved_counts(found, source):
        return f"has {moved} 4-bit value(s) outside the sample that are not the source's"
    return None


def grid_difference(found: PackedLinear, source: AwqLinear) -> str | None:
    """How the scales or the zeros differ, or None."""
    return _scale_difference(found, source) or _zero_difference(found, source)


def explain(found: PackedLinear, candidates: Candidates, *, seed: int) -> str | None:
    """What is wrong, by the first candidate that has these values, or None."""
    for meaning, source, interleaved in candidates:
        if not _different_values(found, source, _sample(source.inputs, seed), interleaved):
            return meaning
    return None


def _sample(inputs: int, seed: int) -> Int64:
    """Rows of the converted matrix: the first, the last, and random others."""
    chosen = np.random.default_rng(seed).choice(inputs, min(SAMPLED_ROWS, inputs), replace=False)
    return np.union1d(chosen, [0, inputs - 1])


def _different_values(found: PackedLinear, source: AwqLinear, rows: Int64, interleaved: bool) -> int:
    flat = rows[:, None] * source.outputs + np.arange(source.outputs)
    k, n = source_positions(flat, source.inputs, source.outputs, interleaved=interleaved)
    return int(np.count_nonzero(_nibbles(found.packed[rows]) != source.values_at(k, n)))


def _nibbles(packed: Uint8) -> Uint8:
    """[rows, N/2] -> [rows, N], the low nibble of a byte first."""
    nibbles: Uint8 = np.stack([packed & np.uint8(15), packed >> np.uint8(4)], axis=-1)
    return nibbles.reshape(len(packed), -1)


def _moved_counts(found: PackedLinear, source: AwqLinear) -> int:
    """The least number of changed values that explains the difference in the counts of 0..15."""
    surplus = _counts(found.packed) - _counts(np.ascontiguousarray(source.qweight).view(np.uint8))
    return int(surplus[surplus > 0].sum())


def _counts(packed: Uint8) -> Int64:
    """How often each of the values 0..15 occurs, two to a byte."""
    counts = np.bincount(packed.reshape(-1).view(np.uint16), minlength=2**16).reshape(16, 16, 16, 16)
    total: Int64 = sum(counts.sum(axis=tuple({0, 1, 2, 3} - {axis})) for axis in range(4))
    return total


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
