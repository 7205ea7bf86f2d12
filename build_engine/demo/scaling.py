"""AWQ's per-channel scales: searched on activations, then folded into the operation before.

A linear's inputs are divided by a scale and its weights multiplied by it: the function stays, but channels with large
activations get finer steps. Source: arXiv:2306.00978, section 3.2; AutoAWQ 0.2, `awq/quantize/quantizer.py`.
"""

import numpy as np

from build_engine.awq import Float32

from .calibrate import Activations
from .rounding import round_to_nearest

RATIOS = np.arange(0.1, 0.8, 0.1, dtype=np.float32)
"""Exponents of the magnitude that the search tries."""
SAMPLE = 3
"""Every third output channel is enough to compare the ratios."""


def search_scale(weight: Float32, seen: Activations, group_size: int) -> Float32:
    """The scale [K], magnitude ** ratio, with the least rounding error in the output of `weight` [K, N]."""
    sample = np.ascontiguousarray(weight[:, ::SAMPLE])
    candidates = [normalize(np.maximum(seen.magnitude, np.float32(1e-4)) ** ratio) for ratio in RATIOS]
    return min(candidates, key=lambda scale: output_error(sample, scale, seen.gram, group_size))


def normalize(scale: Float32) -> Float32:
    """Centre the scales around one, so that products stay well inside float16."""
    centred: Float32 = (scale / np.sqrt(scale.max() * scale.min())).astype(np.float32)
    return centred


def output_error(weight: Float32, scale: Float32, gram: Float32, group_size: int) -> float:
    """Mean squared output error, summed over outputs, of rounding `weight` to nearest under `scale`."""
    column = scale[:, None]
    error = round_to_nearest(weight * column, group_size) / column - weight
    return float(np.sum(error * (gram @ error)))


def share_among_queries(seen: Activations, num_heads: int, num_kv_heads: int) -> Activations:
    """Activations of o_proj, with the magnitude averaged over the query heads that read the same value head.

    A scale that is folded into v_proj applies to all of them.
    """
    by_head = seen.magnitude.reshape(num_kv_heads, num_heads // num_kv_heads, -1)
    shared = np.broadcast_to(by_head.mean(axis=1, keepdims=True), by_head.shape)
    return Activations(seen.gram, shared.reshape(-1))


def per_value_channel(scale: Float32, num_heads: int, num_kv_heads: int) -> Float32:
    """The scale of o_proj's inputs [heads * head_dim] that `share_among_queries` led to -> v_proj's outputs."""
    return scale.reshape(num_kv_heads, num_heads // num_kv_heads, -1)[:, 0].reshape(-1)


def fold_into_norm(norm: Float32, scale: Float32) -> tuple[Float32, Float32]:
    """The norm weight divided by `scale`, rounded to float16, and the scale that it was divided by after rounding."""
    folded = (norm / scale).astype(np.float16).astype(np.float32)
    exact = np.divide(norm, folded, out=np.ones_like(norm), where=folded != 0)
    return folded, exact


def rescale(gram: Float32, scale: Float32) -> Float32:
    """The Gram matrix of the inputs divided by `scale`."""
    return gram / np.outer(scale, scale)
