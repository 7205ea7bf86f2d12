"""The OpenVINO graph of a Mixtral, with a placeholder wherever a weight goes. Holds no weights.

The topology is what OpenVINO 2026.4's CPU plugin and GenAI look for, and small liberties lose it silently:
* SDPA over Concat(past, new) with ReadValue and Gather(beam_idx) becomes paged attention;
* two Slices, a Multiply by -1 and a Concat become one RoPE node.
"""

import numpy as np
import openvino.opset13 as ops
from openvino import Model, Node, Output, PartialShape, Type
from openvino.op import Parameter
from openvino.op.util import Variable, VariableInfo

from build_engine.mixtral import MixtralConfig

from .experts import routed_experts
from .nodes import dimension, f32, i64
from .placeholders import Placeholders

GRAPH_VERSION = "3"
"""Raised with each change of the graph."""


class MixtralGraph:
    """Builds the nodes of one model; `placeholders` has the weights that it needs, in graph order."""

    def __init__(self, config: MixtralConfig) -> None:
        self.config = config
        self.placeholders = Placeholders(config)
        self._assigns: list[Node] = []
        self._inputs = {
            "input_ids": _input("input_ids", [-1, -1], Type.i64),
            "attention_mask": _input("attention_mask", [-1, -1], Type.i64),
            "position_ids": _input("position_ids", [-1, -1], Type.i64),
            "beam_idx": _input("beam_idx", [-1], Type.i32),
        }
        self._batch = dimension(self._inputs["input_ids"], 0)
        self._cos, self._sin = self._rotary_tables()
        self._mask = self._causal_mask()
        self._num_pairs = self._count_pairs()

    def build(self) -> Model:
        """input_ids, attention_mask, position_ids i64 [B, S], beam_idx i32 [B] -> logits f32 [B, S, vocab]."""
        hidden_states = self._embed()
        for layer in range(self.config.num_hidden_layers):
            hidden_states = self._layer(hidden_states, layer)
        hidden_states = self._rms_norm(hidden_states, "model.norm.weight")
        head = "model.embed_tokens.weight" if self.config.tie_word_embeddings else "lm_head.weight"
        logits = ops.matmul(hidden_states, self.placeholders.vocabulary(head), False, True)
        logits.output(0).get_tensor().set_names({"logits"})
        result = ops.result(logits, name="logits")
        parameters = [*self._inputs.values(), *self.placeholders.parameters]
        return Model([result], self._assigns, parameters, "mixtral")

    # ---- layers ----------------------------------------------------------------------------------------------------

    def _embed(self) -> Node:
        return ops.gather(self.placeholders.vocabulary("model.embed_tokens.weight"), self._inputs["input_ids"], i64(0))

    def _layer(self, hidden_states: Node, layer: int) -> Node:
        prefix = f"model.layers.{layer}"
        normed = self._rms_norm(hidden_states, f"{prefix}.input_layernorm.weight")
        hidden_states = ops.add(hidden_states, self._attention(normed, f"{prefix}.self_attn", layer))
        normed = self._rms_norm(hidden_states, f"{prefix}.post_attention_layernorm.weight")
        experts = routed_experts(normed, self._num_pairs, f"{prefix}.block_sparse_moe", self.placeholders, self.config)
        return ops.add(hidden_states, experts)

    def _rms_norm(self, x: Node, name: str) -> Node:
        variance = ops.reduce_mean(ops.power(x, f32(2.0)), i64([-1]), True)
        normed = ops.multiply(x, ops.divide(f32(1.0), ops.sqrt(ops.add(variance, f32(self.config.rms_norm_eps)))))
        return ops.multiply(normed, self.placeholders.plain(name, [self.config.hidden_size]))

    def _attention(self, x: Node, name: str, layer: int) -> Node:
        heads, kv_heads = self.config.num_attention_heads, self.config.num_key_value_heads
        projections = [f"{name}.{kind}_proj" for kind in "qkv"]
        projected = self._to_heads(ops.matmul(x, self.placeholders.linear(*projections), False, True))
        parts = ops.variadic_split(projected, i64(1), i64([heads, kv_heads, kv_heads]))
        query = self._rotate(parts.output(0))
        key = self._remember(self._rotate(parts.output(1)), layer, "key")
        value = self._remember(parts.output(2), layer, "value")
        context = ops.scaled_dot_product_attention(query, self._repeat(key), self._repeat(value), self._mask)
        merged = ops.reshape(ops.transpose(context, i64([0, 2, 1, 3])), i64([0, 0, heads * self.config.head_dim]), True)
        return ops.matmul(merged, self.placeholders.linear(f"{name}.o_proj"), False, True)

    def _to_heads(self, x: Node) -> Node:
        """[B, S, heads * head_dim] -> [B, heads, S, head_dim]."""
        return ops.transpose(ops.reshape(x, i64([0, 0, -1, self.config.head_dim]), True), i64([0, 2, 1, 3]))

    def _remember(self, new: Output | Node, layer: int, part: str) -> Node:
        """Append to this layer's KV cache and return the whole of it, [B, kv_heads, past + S, head_dim]."""
        kv_heads, head_dim = self.config.num_key_value_heads, self.config.head_dim
        info = VariableInfo()
        info.data_shape, info.data_type = PartialShape([-1, kv_heads, -1, head_dim]), Type.f32
        info.variable_id = f"past_key_values.{layer}.{part}present.{layer}.{part}"
        variable = Variable(info)
        empty = ops.broadcast(f32(0.0), ops.concat([self._batch, i64([kv_heads]), i64([0]), i64([head_dim])], 0))
        past = ops.gather(ops.read_value(empty, variable), self._inputs["beam_idx"], i64(0))
        present = ops.concat([past, new], 2)
        self._assigns.append(ops.assign(present, variable))
        return present

    def _repeat(self, x: Node) -> Node:
        """Grouped-query attention: give every query head its key or value head."""
        heads, kv_heads, head_dim = (
            self.config.num_attention_heads,
            self.config.num_key_value_heads,
            self.config.head_dim,
        )
        if heads == kv_heads:
            return x
        wide = ops.concat([self._batch, i64([kv_heads, heads // kv_heads]), dimension(x, 2), i64([head_dim])], 0)
        repeated = ops.broadcast(ops.unsqueeze(x, i64(2)), wide)
        return ops.reshape(repeated, i64([0, heads, -1, head_dim]), True)

    def _count_pairs(self) -> Node:
        """The number of pairs of a token and one of its experts. All layers have as many, so it is computed once."""
        tokens = ops.reduce_prod(ops.shape_of(self._inputs["input_ids"], "i64"), i64(0), False)
        return ops.multiply(tokens, i64(self.config.num_experts_per_tok))

    # ---- positions -------------------------------------------------------------------------------------------------

    def _rotary_tables(self) -> tuple[Node, Node]:
        """cos and sin [B, 1, S, head_dim], for the half-rotation form of RoPE."""
        half = np.arange(0, self.config.head_dim, 2, dtype=np.float64) / self.config.head_dim
        frequencies = (1.0 / self.config.rope_theta**half).astype(np.float32).reshape(1, -1, 1)
        positions = ops.convert(ops.unsqueeze(self._inputs["position_ids"], i64(1)), "f32")
        angles = ops.transpose(ops.matmul(ops.constant(frequencies), positions, False, False), i64([0, 2, 1]))
        both = ops.unsqueeze(ops.concat([angles, angles], -1), i64(1))
        return ops.cos(both), ops.sin(both)

    def _rotate(self, x: Output) -> Node:
        half = self.config.head_dim // 2
        first, second = _part(x, 0, half), _part(x, half, np.iinfo(np.int32).max)
        turned = ops.concat([ops.multiply(second, f32(-1.0)), first], -1)
        return ops.add(ops.multiply(x, self._cos), ops.multiply(turned, self._sin))

    def _causal_mask(self) -> Node:
        """True [B, 1, S, past + S] where a query attends to a key."""
        keys = dimension(self._inputs["attention_mask"], 1)
        key_positions = ops.range(i64(0), ops.squeeze(keys, i64(0)), i64(1), "i64")
        query_positions = ops.unsqueeze(self._inputs["position_ids"], i64([1, 3]))
        visible = ops.convert(ops.unsqueeze(self._inputs["attention_mask"], i64([1, 2])), "boolean")
        return ops.logical_and(ops.less_equal(key_positions, query_positions), visible)


def _input(name: str, shape: list[int], dtype: Type) -> Parameter:
    parameter = Parameter(dtype, PartialShape(shape))
    parameter.set_friendly_name(name)
    parameter.output(0).get_tensor().set_names({name})
    return parameter


def _part(x: Output, start: int, stop: int) -> Node:
    """x[..., start:stop] of a four-dimensional x; with a split instead, RoPE is not fused."""
    return ops.slice(x, i64([start]), i64([stop]), i64([1]), i64([3]))
