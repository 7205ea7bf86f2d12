"""The inputs of each linear on the calibration text, taken from a run of the float model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from build_engine.awq import Float32

from .mixtral import Config, Layer, attention_output, gated, rms_norm


@dataclass(frozen=True, slots=True)
class Activations:
    """Inputs X [tokens, K] of a linear, reduced to what quantisation needs, both averaged over tokens.

    `gram` is X^T X [K, K]: the squared output error of a weight error D is trace(D^T gram D). `magnitude` is |X| [K].
    """

    gram: Float32
    magnitude: Float32


@dataclass(frozen=True, slots=True)
class LayerActivations:
    """The activations of one layer, named after the linears that take them as input."""

    qkv: Activations
    o_proj: Activations
    w1_w3: Activations
    w2: Activations


def observe(
    hidden_states: Float32, lengths: Sequence[int], layer: Layer, config: Config
) -> tuple[LayerActivations, Float32]:
    """Run a one-expert layer over packed sequences [tokens, hidden_size]. Returns its activations and its output."""
    (expert,) = layer.experts
    qkv = rms_norm(hidden_states, layer.input_layernorm, config.rms_norm_eps)
    o_proj = attention_output(qkv, lengths, layer.attention, config)
    attended = hidden_states + o_proj @ layer.attention.o_proj
    w1_w3 = rms_norm(attended, layer.post_attention_layernorm, config.rms_norm_eps)
    w2 = gated(w1_w3, expert)
    return LayerActivations(*map(summarize, (qkv, o_proj, w1_w3, w2))), attended + w2 @ expert.w2


def summarize(inputs: Float32) -> Activations:
    """Inputs [tokens, K] of a linear -> their Gram matrix and mean magnitude."""
    return Activations(inputs.T @ inputs / np.float32(len(inputs)), np.abs(inputs).mean(axis=0))
