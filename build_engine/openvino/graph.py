"""The OpenVINO graph of a Mixtral, with a named placeholder wherever a weight goes. Holds no weights.

A placeholder bears the name of its checkpoint tensor; `*` in it stands for all experts, stacked on a leading axis.
weights.py puts the weights in afterwards, so that a graph of 24 GB costs no more memory than one of 24 MB.

The topology is what OpenVINO 2026.4's CPU plugin and GenAI look for, and small liberties lose it silently:
* SDPA over Concat(past, new) with ReadValue and Gather(beam_idx) becomes paged attention;
* Tile -> MatMul/Swish/Multiply/MatMul -> routing from ScatterElementsUpdate -> ReduceSum becomes three GatherMatmul
  nodes that read only the routed experts. A Swish with a beta input, or a Reshape with both B and T given, does not;
* two Slices, a Multiply by -1 and a Concat become one RoPE node.
"""

import numpy as np
import openvino.opset13 as ops
from openvino import Model, Node, Output, PartialShape, Type
from openvino.op import Parameter
from openvino.op.util import Variable, VariableInfo
from openvino.utils.node_factory import NodeFactory

from build_engine.mixtral import MixtralConfig, linear_sizes

_QUANTIZED_PARTS = ("qweight", "qzeros", "scales")


class MixtralGraph:
    """Builds the nodes of one model; `placeholders` collects the weights it will need, in graph order."""

    def __init__(self, config: MixtralConfig) -> None:
        self.config = config
        self.placeholders: list[Parameter] = []
        self._assigns: list[Node] = []
        self._inputs = {
            "input_ids": _input("input_ids", [-1, -1], Type.i64),
            "attention_mask": _input("attention_mask", [-1, -1], Type.i64),
            "position_ids": _input("position_ids", [-1, -1], Type.i64),
            "beam_idx": _input("beam_idx", [-1], Type.i32),
        }
        self._batch = _dimension(self._inputs["input_ids"], 0)
        self._cos, self._sin = self._rotary_tables()
        self._mask = self._causal_mask()

    def build(self) -> Model:
        """input_ids, attention_mask, position_ids i64 [B, S], beam_idx i32 [B] -> logits f32 [B, S, vocab]."""
        hidden_states = self._embed()
        for layer in range(self.config.num_hidden_layers):
            hidden_states = self._layer(hidden_states, layer)
        hidden_states = self._rms_norm(hidden_states, "model.norm.weight")
        head = "model.embed_tokens.weight" if self.config.tie_word_embeddings else "lm_head.weight"
        logits = ops.matmul(hidden_states, self._vocabulary(head), False, True)
        logits.output(0).get_tensor().set_names({"logits"})
        result = ops.result(logits, name="logits")
        parameters = [*self._inputs.values(), *self.placeholders]
        return Model([result], self._assigns, parameters, "mixtral")

    # ---- weights ---------------------------------------------------------------------------------------------------

    def _placeholder(self, name: str, shape: list[int], dtype: Type) -> Parameter:
        parameter = Parameter(dtype, PartialShape(shape))
        parameter.set_friendly_name(name)
        self.placeholders.append(parameter)
        return parameter

    def _plain(self, name: str, shape: list[int]) -> Node:
        return ops.convert(self._placeholder(name, shape, Type.f16), "f32")

    def _vocabulary(self, name: str) -> Node:
        """Embedding and head, [vocab, hidden]; one constant when they are tied."""
        for parameter in self.placeholders:
            if parameter.get_friendly_name() == name:
                return ops.convert(parameter, "f32")
        return self._plain(name, [self.config.vocab_size, self.config.hidden_size])

    def _linear(self, name: str, kind: str, experts: int | None = None) -> Node:
        """The dequantised weight [out, in], or [experts, out, in]: (q - z) * s, as AWQ defines it."""
        inputs, outputs = linear_sizes(self.config)[kind]
        groups, leading = inputs // self.config.group_size, [experts] if experts else []
        quants, zeros, scales = (f"{name}.{part}" for part in _QUANTIZED_PARTS)
        q = ops.convert(self._placeholder(quants, [*leading, outputs, groups, self.config.group_size], Type.u4), "f16")
        z = ops.convert(self._placeholder(zeros, [*leading, outputs, groups, 1], Type.u4), "f16")
        s = self._placeholder(scales, [*leading, outputs, groups, 1], Type.f16)
        weight = ops.multiply(ops.subtract(q, z), s)
        return ops.convert(ops.reshape(weight, _i64([*leading, outputs, inputs]), False), "f32")

    # ---- layers ----------------------------------------------------------------------------------------------------

    def _embed(self) -> Node:
        return ops.gather(self._vocabulary("model.embed_tokens.weight"), self._inputs["input_ids"], _i64(0))

    def _layer(self, hidden_states: Node, layer: int) -> Node:
        prefix = f"model.layers.{layer}"
        normed = self._rms_norm(hidden_states, f"{prefix}.input_layernorm.weight")
        hidden_states = ops.add(hidden_states, self._attention(normed, f"{prefix}.self_attn", layer))
        normed = self._rms_norm(hidden_states, f"{prefix}.post_attention_layernorm.weight")
        return ops.add(hidden_states, self._experts(normed, f"{prefix}.block_sparse_moe"))

    def _rms_norm(self, x: Node, name: str) -> Node:
        variance = ops.reduce_mean(ops.power(x, _f32(2.0)), _i64([-1]), True)
        normed = ops.multiply(x, ops.divide(_f32(1.0), ops.sqrt(ops.add(variance, _f32(self.config.rms_norm_eps)))))
        return ops.multiply(normed, self._plain(name, [self.config.hidden_size]))

    def _attention(self, x: Node, name: str, layer: int) -> Node:
        heads, kv_heads = self.config.num_attention_heads, self.config.num_key_value_heads
        query = self._rotate(self._project(x, name, "q_proj", heads))
        key = self._remember(self._rotate(self._project(x, name, "k_proj", kv_heads)), layer, "key")
        value = self._remember(self._project(x, name, "v_proj", kv_heads), layer, "value")
        context = ops.scaled_dot_product_attention(query, self._repeat(key), self._repeat(value), self._mask)
        merged = ops.reshape(
            ops.transpose(context, _i64([0, 2, 1, 3])), _i64([0, 0, heads * self.config.head_dim]), True
        )
        return ops.matmul(merged, self._linear(f"{name}.o_proj", "o_proj"), False, True)

    def _project(self, x: Node, name: str, kind: str, heads: int) -> Node:
        """[B, S, hidden] -> [B, heads, S, head_dim]."""
        projected = ops.matmul(x, self._linear(f"{name}.{kind}", kind), False, True)
        return ops.transpose(
            ops.reshape(projected, _i64([0, 0, heads, self.config.head_dim]), True), _i64([0, 2, 1, 3])
        )

    def _remember(self, new: Node, layer: int, part: str) -> Node:
        """Append to this layer's KV cache and return the whole of it, [B, kv_heads, past + S, head_dim]."""
        kv_heads, head_dim = self.config.num_key_value_heads, self.config.head_dim
        info = VariableInfo()
        info.data_shape, info.data_type = PartialShape([-1, kv_heads, -1, head_dim]), Type.f32
        info.variable_id = f"past_key_values.{layer}.{part}present.{layer}.{part}"
        variable = Variable(info)
        empty = ops.broadcast(_f32(0.0), ops.concat([self._batch, _i64([kv_heads]), _i64([0]), _i64([head_dim])], 0))
        past = ops.gather(ops.read_value(empty, variable), self._inputs["beam_idx"], _i64(0))
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
        wide = ops.concat([self._batch, _i64([kv_heads, heads // kv_heads]), _dimension(x, 2), _i64([head_dim])], 0)
        repeated = ops.broadcast(ops.unsqueeze(x, _i64(2)), wide)
        return ops.reshape(repeated, _i64([0, heads, -1, head_dim]), True)

    def _experts(self, x: Node, name: str) -> Node:
        experts, hidden = self.config.num_local_experts, self.config.hidden_size
        tokens = ops.reshape(x, _i64([-1, hidden]), False)
        tiled = ops.reshape(ops.tile(tokens, _i64([experts, 1])), _i64([experts, -1, hidden]), False)
        gate = ops.matmul(tiled, self._linear(f"{name}.experts.*.w1", "w1", experts), False, True)
        up = ops.matmul(tiled, self._linear(f"{name}.experts.*.w3", "w3", experts), False, True)
        down = self._linear(f"{name}.experts.*.w2", "w2", experts)
        outputs = ops.matmul(ops.multiply(_swish(gate), up), down, False, True)
        by_batch = ops.reshape(outputs, ops.concat([_i64([experts]), self._batch, _i64([-1, hidden])], 0), False)
        return ops.reduce_sum(ops.multiply(by_batch, self._routing(tokens, name)), _i64([0]), False)

    def _routing(self, tokens: Node, name: str) -> Node:
        """Weights of the chosen experts, zero elsewhere, [experts, B, S, 1]."""
        experts = self.config.num_local_experts
        scores = ops.matmul(tokens, self._plain(f"{name}.gate.weight", [experts, self.config.hidden_size]), False, True)
        top = ops.topk(ops.softmax(scores, -1), _i64(self.config.num_experts_per_tok), -1, "max", "value", "i64")
        weights = ops.divide(top.output(0), ops.reduce_sum(top.output(0), _i64([-1]), True))
        zeros = ops.broadcast(_f32(0.0), ops.concat([_dimension(tokens, 0), _i64([experts])], 0))
        spread = ops.scatter_elements_update(zeros, top.output(1), weights, _i64(1))
        by_expert = ops.transpose(spread, _i64([1, 0]))
        by_batch = ops.reshape(by_expert, ops.concat([_i64([experts]), self._batch, _i64([-1])], 0), False)
        return ops.unsqueeze(by_batch, _i64(-1))

    # ---- positions -------------------------------------------------------------------------------------------------

    def _rotary_tables(self) -> tuple[Node, Node]:
        """cos and sin [B, 1, S, head_dim], for the half-rotation form of RoPE."""
        half = np.arange(0, self.config.head_dim, 2, dtype=np.float64) / self.config.head_dim
        frequencies = (1.0 / self.config.rope_theta**half).astype(np.float32).reshape(1, -1, 1)
        positions = ops.convert(ops.unsqueeze(self._inputs["position_ids"], _i64(1)), "f32")
        angles = ops.transpose(ops.matmul(ops.constant(frequencies), positions, False, False), _i64([0, 2, 1]))
        both = ops.unsqueeze(ops.concat([angles, angles], -1), _i64(1))
        return ops.cos(both), ops.sin(both)

    def _rotate(self, x: Node) -> Node:
        half = self.config.head_dim // 2
        first, second = _part(x, 0, half), _part(x, half, np.iinfo(np.int32).max)
        turned = ops.concat([ops.multiply(second, _f32(-1.0)), first], -1)
        return ops.add(ops.multiply(x, self._cos), ops.multiply(turned, self._sin))

    def _causal_mask(self) -> Node:
        """True [B, 1, S, past + S] where a query attends to a key."""
        keys = _dimension(self._inputs["attention_mask"], 1)
        key_positions = ops.range(_i64(0), ops.squeeze(keys, _i64(0)), _i64(1), "i64")
        query_positions = ops.unsqueeze(self._inputs["position_ids"], _i64([1, 3]))
        visible = ops.convert(ops.unsqueeze(self._inputs["attention_mask"], _i64([1, 2])), "boolean")
        return ops.logical_and(ops.less_equal(key_positions, query_positions), visible)


def _input(name: str, shape: list[int], dtype: Type) -> Parameter:
    parameter = Parameter(dtype, PartialShape(shape))
    parameter.set_friendly_name(name)
    parameter.output(0).get_tensor().set_names({name})
    return parameter


def _swish(x: Node) -> Node:
    """With one input: `opset13.swish` would add a beta constant, and the expert pattern would not match."""
    return NodeFactory("opset4").create("Swish", [x], {})


def _part(x: Node, start: int, stop: int) -> Node:
    """x[..., start:stop] of a four-dimensional x; with a split instead, RoPE is not fused."""
    return ops.slice(x, _i64([start]), _i64([stop]), _i64([1]), _i64([3]))


def _dimension(x: Node, axis: int) -> Node:
    """One dimension of x as i64 [1]."""
    return ops.gather(ops.shape_of(x, "i64"), _i64([axis]), _i64(0))


def _i64(value: int | list[int]) -> Output:
    return ops.constant(np.array(value, np.int64)).output(0)


def _f32(value: float) -> Output:
    return ops.constant(np.array(value, np.float32)).output(0)
