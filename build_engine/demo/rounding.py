"""Round a weight to the AutoAWQ format so that the layer's output, not the weight, changes least.

Clip search as in AWQ (arXiv:2306.00978, section 3), rounding with error feedback as in GPTQ (arXiv:2210.17323).
Weights are [K, N], inputs first; a group is `group_size` consecutive inputs of one output.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from build_engine.awq import MAX_QUANT, Float32, Uint8, pack_int4
from build_engine.awq_linear import AwqLinear

Order: TypeAlias = NDArray[np.intp]
"""The order in which inputs are rounded, a permutation of 0 to K - 1."""
Orders: TypeAlias = Sequence[Order]

CLIP_RATIOS = np.linspace(1.0, 0.76, 9, dtype=np.float32)
"""Shares of a group's full range that the search tries."""
DAMPING = 0.3
"""Share of the mean diagonal added to the Gram matrix. With GPTQ's 0.01, w2 fitted the noise of this small calibration
set: worse on unseen text than rounding to nearest. Between 0.05 and 0.6 the mean of two experts hardly changes."""
BLOCK = 32
"""Rows that are rounded before the remaining rows are updated."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The values each group can take: (0..15 - zeros) * scales. Both [K / group_size, N], zeros whole numbers."""

    scales: Float32
    zeros: Float32


def fit_grid(low: Float32, high: Float32) -> Grid:
    """The grid that reaches from `low` to `high` and holds zero. Scales are rounded to float16, as they are stored."""
    scales = np.maximum((high - low) / MAX_QUANT, np.float32(1e-5)).astype(np.float16).astype(np.float32)
    return Grid(scales, np.clip(np.rint(-low / scales), 0, MAX_QUANT))


def to_groups(weight: Float32, group_size: int) -> Float32:
    """[K, N] -> [K / group_size, group_size, N]."""
    return weight.reshape(-1, group_size, weight.shape[1])


def snap(groups: Float32, grid: Grid) -> Float32:
    """The nearest grid value of each weight in [groups, group_size, N]."""
    zeros = grid.zeros[:, None]
    quants = groups / grid.scales[:, None]
    np.rint(quants, out=quants)
    np.clip(quants, -zeros, MAX_QUANT - zeros, out=quants)
    quants *= grid.scales[:, None]
    return quants


def full_range(groups: Float32) -> tuple[Float32, Float32]:
    """Smallest and largest weight of each group, zero included."""
    return np.minimum(groups.min(axis=1), 0), np.maximum(groups.max(axis=1), 0)


def round_to_nearest(weight: Float32, group_size: int) -> Float32:
    """Plain rounding, dequantised: full range, no search, no feedback."""
    groups = to_groups(weight, group_size)
    return snap(groups, fit_grid(*full_range(groups))).reshape(weight.shape)


def search_grid(weight: Float32, importance: Float32, group_size: int) -> Grid:
    """For each group, the clipped range with the least squared error, weighted by `importance` [K]."""
    groups, weights = to_groups(weight, group_size), importance.reshape(-1, 1, group_size)
    low, high = full_range(groups)
    best = fit_grid(low, high)
    least = np.full(low.shape, np.inf, np.float32)
    for ratio in CLIP_RATIOS:
        grid = fit_grid(low * ratio, high * ratio)
        error = (weights @ np.square(snap(groups, grid) - groups))[:, 0]
        better = error < least
        least = np.where(better, error, least)
        best = Grid(np.where(better, grid.scales, best.scales), np.where(better, grid.zeros, best.zeros))
    return best


def feedback(gram: Float32) -> Float32:
    """Unit upper triangle F [K, K]: -F[i, j] * e at the inputs j after i compensates an error e at input i.

    GPTQ takes the Cholesky factor U of inverse(gram) = U^T U. Here gram = R R^T with R upper, so U is inverse(R):
    a Cholesky of the reversed matrix and a triangular inverse cost a fifth of a full inverse and a Cholesky.
    """
    damped = gram + np.float32(DAMPING * np.mean(np.diag(gram))) * np.eye(len(gram), dtype=np.float32)
    upper = invert_lower(np.linalg.cholesky(damped[::-1, ::-1]))[::-1, ::-1]
    return np.ascontiguousarray(upper / np.diag(upper)[:, None])


def invert_lower(lower: Float32) -> Float32:
    """Inverse of a lower triangle [K, K], by halves; numpy has no routine for it."""
    half = len(lower) // 2
    if half < BLOCK:
        return np.linalg.inv(lower)
    first, last = invert_lower(lower[:half, :half]), invert_lower(lower[half:, half:])
    inverse = np.zeros_like(lower)
    inverse[:half, :half], inverse[half:, half:] = first, last
    inverse[half:, :half] = -last @ (lower[half:, :half] @ first)
    return inverse


def round_with_feedback(weight: Float32, grid: Grid, gram: Float32, order: Order) -> Uint8:
    """Quantised values [K, N]: inputs are rounded one by one in `order`, each compensating the errors before it."""
    factor = feedback(gram[np.ix_(order, order)])
    remaining = weight[order]
    groups = order // (len(weight) // len(grid.scales))
    quants = np.empty(weight.shape, np.uint8)
    for start in range(0, len(order), BLOCK):
        stop = start + BLOCK
        block, within = remaining[start:stop], np.ascontiguousarray(factor[start:stop, start:stop].T)
        errors = np.zeros_like(block)
        for row, (group, column) in enumerate(zip(groups[start:stop], order[start:stop], strict=True)):
            # Subtract the errors of the earlier rows of this block; those of earlier blocks are subtracted already.
            target = block[row] - within[row, :row] @ errors[:row]
            quants[column], rounded = _round_row(target, grid.scales[group], grid.zeros[group])
            errors[row] = target - rounded
        remaining[stop:] -= factor[start:stop, stop:].T @ errors
    return quants


def round_for_mean(weight: Float32, grid: Grid, gram: Float32, orders: Orders) -> Iterator[Uint8]:
    """A rounding of `weight` [K, N] for each order, each compensating what the ones before have left in their mean."""
    total = np.zeros_like(weight)
    for number, order in enumerate(orders, 1):
        quants = round_with_feedback(number * weight - total, grid, gram, order)
        total += dequantize(quants, grid)
        yield quants


def dequantize(quants: Uint8, grid: Grid) -> Float32:
    """The weight [K, N] that quantised values stand for."""
    group_size = len(quants) // len(grid.scales)
    values: Float32 = (quants - grid.zeros.repeat(group_size, axis=0)) * grid.scales.repeat(group_size, axis=0)
    return values


def _round_row(weights: Float32, scales: Float32, zeros: Float32) -> tuple[Float32, Float32]:
    quants = np.minimum(np.maximum(np.rint(weights / scales) + zeros, 0), MAX_QUANT)
    return quants, (quants - zeros) * scales


def to_awq(quants: Uint8, grid: Grid) -> AwqLinear:
    """Pack as AutoAWQ stores it, without loss."""
    return AwqLinear(pack_int4(quants), pack_int4(grid.zeros.astype(np.uint8)), grid.scales.astype(np.float16))
