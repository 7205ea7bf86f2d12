"""One dense layer -> one quantised Mixtral layer that computes the same function.

Sparse upcycling (arXiv:2212.05055): every expert is the layer's MLP and the router is random. Mixtral divides the two
routing weights by their sum, so any two equal experts give the MLP's own output. Experts differ in rounding only, and
come in pairs: the router has the same column for both, so that a token goes to both with the weights 1/2 and 1/2, and
the second is rounded so that its errors cancel those of the first. The mean of a pair is as exact as 5 bits are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from build_engine.awq import Float32
from build_engine.awq_linear import AwqLinear

from .calibrate import LayerActivations
from .mixtral import Config, Expert, Layer
from .rounding import Grid, Order, Orders, round_for_mean, search_grid, to_awq
from .scaling import (
    fold_into_norm,
    per_value_channel,
    rescale,
    search_scale,
    share_among_queries,
)

GROUP_SIZE = 64
NUM_EXPERTS = 8
NUM_PAIRS = 2
"""Different pairs of experts; expert e is of pair e // 2 modulo this. Each order of rounding costs a factorisation."""


@dataclass(frozen=True, slots=True)
class MixtralLayer:
    """One layer. `linears` by their names below `model.layers.N.`; `gate` float32 [hidden_size, NUM_EXPERTS]."""

    linears: Mapping[str, AwqLinear]
    input_layernorm: Float32
    post_attention_layernorm: Float32
    gate: Float32


@dataclass(frozen=True, slots=True)
class Draws:
    """What is random about a layer: the orders in which the inputs of its linears are rounded, and its router.

    `router` is standard normal, [hidden_size, NUM_EXPERTS / 2].
    """

    o_proj: Order
    qkv: Order
    w1_w3: Sequence[Orders]
    w2: Sequence[Orders]
    router: Float32


@dataclass(frozen=True, slots=True)
class LayerJob:
    """A layer to upcycle, and all that it takes."""

    layer: Layer
    seen: LayerActivations
    config: Config
    draws: Draws


def draw(config: Config, rng: np.random.Generator) -> Draws:
    """The draws of the next layer. To be called for each in turn, so that they do not depend on who upcycles which."""
    return Draws(
        o_proj=rng.permutation(config.num_heads * config.head_dim),
        qkv=rng.permutation(config.hidden_size),
        w1_w3=_pairs_of_orders(config.hidden_size, rng),
        w2=_pairs_of_orders(config.intermediate_size, rng),
        router=rng.standard_normal((config.hidden_size, NUM_EXPERTS // 2)).astype(np.float32),
    )


def upcycle_layer(job: LayerJob) -> MixtralLayer:
    """Scale, clip and round one layer, and add a random router."""
    layer, seen = job.layer, job.seen
    attention, input_layernorm = _quantize_attention(job)
    (expert,) = layer.experts
    mlp_in = np.concatenate([expert.w1, expert.w3], axis=1)
    post_attention_layernorm, scale = fold_into_norm(
        layer.post_attention_layernorm, search_scale(mlp_in, seen.w1_w3, GROUP_SIZE)
    )
    experts = _quantize_mlp(expert, scale, seen, job.draws)
    linears = attention | {
        f"block_sparse_moe.experts.{index}.{name}": linear
        for index in range(NUM_EXPERTS)
        for name, linear in experts[index % len(experts)].items()
    }
    router = scale_router(job.draws.router, seen.w1_w3.gram)
    return MixtralLayer(linears, input_layernorm, post_attention_layernorm, gate=router * scale[:, None])


def scale_router(columns: Float32, gram: Float32) -> Float32:
    """[hidden_size, NUM_EXPERTS], two equal columns for each pair; logits have unit variance on inputs of this Gram."""
    router: Float32 = (columns / np.float32(np.sqrt(np.trace(gram)))).repeat(2, axis=1)
    return router


def _quantize_attention(job: LayerJob) -> tuple[dict[str, AwqLinear], Float32]:
    weights, seen, heads = job.layer.attention, job.seen, (job.config.num_heads, job.config.num_kv_heads)
    out_scale = search_scale(weights.o_proj, share_among_queries(seen.o_proj, *heads), GROUP_SIZE)
    o_proj = _quantize({"o_proj": weights.o_proj}, out_scale, seen.o_proj.gram, [[job.draws.o_proj]])
    qkv = {
        "q_proj": weights.q_proj,
        "k_proj": weights.k_proj,
        "v_proj": weights.v_proj / per_value_channel(out_scale, *heads),
    }
    norm, scale = fold_into_norm(job.layer.input_layernorm, search_scale(_fuse(qkv), seen.qkv, GROUP_SIZE))
    (linears,) = _quantize(qkv, scale, seen.qkv.gram, [[job.draws.qkv]])
    return {f"self_attn.{name}": linear for name, linear in (linears | o_proj[0]).items()}, norm


def _quantize_mlp(expert: Expert, scale: Float32, seen: LayerActivations, draws: Draws) -> list[dict[str, AwqLinear]]:
    """`NUM_PAIRS` pairs of roundings, one after the other, of one MLP whose inputs are divided by `scale`."""
    mid_scale = search_scale(expert.w2, seen.w2, GROUP_SIZE)
    mlp_in = {"w1": expert.w1, "w3": expert.w3 / mid_scale}
    ins = _quantize(mlp_in, scale, seen.w1_w3.gram, draws.w1_w3)
    outs = _quantize({"w2": expert.w2}, mid_scale, seen.w2.gram, draws.w2)
    return [linears | w2 for linears, w2 in zip(ins, outs, strict=True)]


def _pairs_of_orders(length: int, rng: np.random.Generator) -> list[Orders]:
    return [[rng.permutation(length) for _ in range(2)] for _ in range(NUM_PAIRS)]


def _fuse(weights: Mapping[str, Float32]) -> Float32:
    return np.concatenate(list(weights.values()), axis=1)


def _quantize(
    weights: Mapping[str, Float32], scale: Float32, gram: Float32, groups: Sequence[Orders]
) -> list[dict[str, AwqLinear]]:
    """Round linears that have the same inputs together, once for each order of each group."""
    scaled, scaled_gram = _fuse(weights) * scale[:, None], rescale(gram, scale)
    grid = search_grid(scaled, np.diag(scaled_gram), GROUP_SIZE)
    ends = np.cumsum([weight.shape[1] for weight in weights.values()])[:-1]
    grids = [
        Grid(*parts) for parts in zip(*(np.split(x, ends, axis=1) for x in (grid.scales, grid.zeros)), strict=True)
    ]
    roundings = []
    for orders in groups:
        for quants in round_for_mean(scaled, grid, scaled_gram, orders):
            packed = map(to_awq, np.split(quants, ends, axis=1), grids)
            roundings.append(dict(zip(weights, packed, strict=True)))
    return roundings
