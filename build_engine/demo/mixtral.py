"""A Mixtral decoder in numpy, float32, over whole sequences: for calibrating and measuring. No KV cache, no sampling.

Linear weights are stored inputs first, as AutoAWQ does: [K, N], y = x @ w. Sequences are packed: hidden states are
[tokens, hidden_size], one sequence after the other, and `lengths` says where they end.
Source of the maths: transformers, `models/mixtral/modeling_mixtral.py`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from build_engine.awq import Float32

EXPERTS_PER_TOKEN = 2


@dataclass(frozen=True, slots=True)
class Config:
    """The numbers that the forward pass needs, under Hugging Face's names."""

    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_theta: float
    rms_norm_eps: float


@dataclass(frozen=True, slots=True)
class Attention:
    """The weights of an attention block."""

    q_proj: Float32
    k_proj: Float32
    v_proj: Float32
    o_proj: Float32


@dataclass(frozen=True, slots=True)
class Expert:
    """The weights of an MLP: w2(silu(x w1) * (x w3))."""

    w1: Float32
    w2: Float32
    w3: Float32


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer; `gate` is [hidden_size, number of experts]. With one expert it is a Llama layer."""

    input_layernorm: Float32
    attention: Attention
    post_attention_layernorm: Float32
    gate: Float32
    experts: tuple[Expert, ...]


@dataclass(frozen=True, slots=True)
class Decoder:
    """A whole model: `embed_tokens` [vocab_size, hidden_size], `lm_head` [hidden_size, vocab_size]."""

    config: Config
    embed_tokens: Float32
    layers: Iterable[Layer]
    norm: Float32
    lm_head: Float32


def rms_norm(hidden_states: Float32, weight: Float32, eps: float) -> Float32:
    """Scale each vector to unit root mean square, then by `weight`."""
    mean_square = np.mean(np.square(hidden_states), axis=-1, keepdims=True)
    normed: Float32 = hidden_states / np.sqrt(mean_square + np.float32(eps)) * weight
    return normed


def rotate(heads: Float32, rope_theta: float) -> Float32:
    """Rotary position embedding of [heads, length, head_dim], pairs (i, i + head_dim / 2)."""
    length, head_dim = heads.shape[-2:]
    frequencies = rope_theta ** (-np.arange(0, head_dim, 2) / head_dim)
    angles = np.outer(np.arange(length), frequencies)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    first, second = np.split(heads, 2, axis=-1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def silu(x: Float32) -> Float32:
    """x * sigmoid(x). An exponential takes numpy a seventh of the time of a tanh; below -80 it would overflow."""
    activated: Float32 = x / (np.float32(1) + np.exp(-np.maximum(x, np.float32(-80))))
    return activated


def softmax(x: Float32) -> Float32:
    """Softmax over the last axis."""
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    probabilities: Float32 = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities


def attend(q: Float32, k: Float32, v: Float32, config: Config) -> Float32:
    """Causal grouped-query attention over one sequence's q, k, v [length, heads * head_dim]: the input of o_proj."""
    length = len(q)

    def heads(x: Float32) -> Float32:
        return x.reshape(length, -1, config.head_dim).swapaxes(0, 1)

    repeats = config.num_heads // config.num_kv_heads
    queries = rotate(heads(q), config.rope_theta)
    keys = rotate(heads(k), config.rope_theta).repeat(repeats, axis=0)
    values = heads(v).repeat(repeats, axis=0)
    future = np.triu(np.full((length, length), -np.inf, np.float32), 1)
    scores = queries @ keys.swapaxes(-1, -2) / np.float32(np.sqrt(config.head_dim)) + future
    return (softmax(scores) @ values).swapaxes(0, 1).reshape(length, -1)


def attention_output(normed: Float32, lengths: Sequence[int], attention: Attention, config: Config) -> Float32:
    """The attention block up to the input of o_proj, [tokens, heads * head_dim]."""
    ends = np.cumsum(lengths)[:-1]
    qkv = (np.split(normed @ weight, ends) for weight in (attention.q_proj, attention.k_proj, attention.v_proj))
    return np.concatenate([attend(q, k, v, config) for q, k, v in zip(*qkv, strict=True)])


def route(normed: Float32, gate: Float32) -> Float32:
    """Routing weights [tokens, experts]: softmax, the two largest kept and divided by their sum, zero elsewhere."""
    weights: Float32 = softmax(normed @ gate)
    if weights.shape[-1] > EXPERTS_PER_TOKEN:
        threshold = np.sort(weights, axis=-1)[:, -EXPERTS_PER_TOKEN, None]
        weights = np.where(weights >= threshold, weights, np.float32(0))
    renormalized: Float32 = weights / weights.sum(axis=-1, keepdims=True)
    return renormalized


def gated(x: Float32, expert: Expert) -> Float32:
    """The input of w2: silu(x w1) * (x w3)."""
    return silu(x @ expert.w1) * (x @ expert.w3)


def sparse_moe(normed: Float32, gate: Float32, experts: tuple[Expert, ...]) -> Float32:
    """The mixture-of-experts block without its norm and residual; each token runs through its experts only."""
    routing = route(normed, gate)
    output = np.zeros_like(normed)
    for index, expert in enumerate(experts):
        routed = np.flatnonzero(routing[:, index])
        output[routed] += routing[routed, index, None] * (gated(normed[routed], expert) @ expert.w2)
    return output


def run_layer(hidden_states: Float32, lengths: Sequence[int], layer: Layer, config: Config) -> Float32:
    """One decoder layer, residuals included."""
    normed = rms_norm(hidden_states, layer.input_layernorm, config.rms_norm_eps)
    hidden_states = hidden_states + attention_output(normed, lengths, layer.attention, config) @ layer.attention.o_proj
    normed = rms_norm(hidden_states, layer.post_attention_layernorm, config.rms_norm_eps)
    return hidden_states + sparse_moe(normed, layer.gate, layer.experts)


def token_losses(sequences: Sequence[Sequence[int]], decoder: Decoder) -> Float32:
    """Negative log-likelihood in nats of every token but the first of each sequence of ids, all in one array.

    Iterates over the layers once, so `decoder.layers` may be a generator that reads each when it is needed.
    """
    lengths = [len(ids) for ids in sequences]
    hidden_states = decoder.embed_tokens[np.concatenate(sequences)]
    for layer in decoder.layers:
        hidden_states = run_layer(hidden_states, lengths, layer, decoder.config)
    normed = rms_norm(hidden_states, decoder.norm, decoder.config.rms_norm_eps)
    by_sequence = zip(np.split(normed, np.cumsum(lengths)[:-1]), sequences, strict=True)
    return np.concatenate([_losses(states[:-1] @ decoder.lm_head, ids[1:]) for states, ids in by_sequence])


def _losses(logits: Float32, targets: Sequence[int]) -> Float32:
    largest = logits.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(logits - largest).sum(axis=-1)) + largest[:, 0]
    losses: Float32 = log_sum - logits[np.arange(len(targets)), list(targets)]
    return losses
