"""The experts of one layer: each multiplies all tokens that are routed to it at once.

The pairs of a token and one of its experts are sorted by expert, so that each expert has consecutive rows, often none.
OpenVINO 2026.4.1 has a kernel for routed experts, GatherMatmul. Without AMX it multiplies one token at a time and
unpacks the expert's weights for each: 128 tokens through 30 layers of the demo model took 1.7 s, in place of 0.4 here.
"""

import openvino.opset13 as ops
from openvino import Node, Output

from build_engine.mixtral import MixtralConfig

from .nodes import i64
from .placeholders import Placeholders


def routed_experts(x: Node, num_pairs: Node, name: str, placeholders: Placeholders, config: MixtralConfig) -> Node:
    """[B, S, hidden] -> [B, S, hidden]. `name` is that of the block in the checkpoint.

    `num_pairs`: B * S * num_experts_per_tok, a number.
    """
    hidden, per_token = config.hidden_size, config.num_experts_per_tok
    tokens = ops.reshape(x, i64([-1, hidden]), False)
    shares, chosen = _route(
        tokens, placeholders.plain(f"{name}.gate.weight", [config.num_local_experts, hidden]), per_token
    )
    order, counts = _sort(chosen, num_pairs, config.num_local_experts)
    rows = ops.gather(tokens, ops.divide(order, i64(per_token)), i64(0))
    outputs = _feed_forward(rows, counts, name, placeholders, config)
    by_pair = ops.scatter_update(rows, order, outputs, i64(0))  # in the order of the tokens again; replaces every row
    by_token = ops.reshape(by_pair, i64([-1, per_token, hidden]), False)
    mixed = ops.reduce_sum(ops.multiply(by_token, ops.unsqueeze(shares, i64(2))), i64([1]), False)
    return ops.reshape(mixed, ops.shape_of(x, "i64"), False)


def _route(tokens: Node, gate: Node, per_token: int) -> tuple[Node, Output]:
    """Of each token's experts the shares, which add up to 1, and the numbers, both [T, per_token].

    The softmax of the chosen scores is what Mixtral's own form gives: the softmax of all, divided by the chosen's sum.
    """
    top = ops.topk(ops.matmul(tokens, gate, False, True), i64(per_token), -1, "max", "value", "i64")
    return ops.softmax(top.output(0), -1), top.output(1)


def _sort(chosen: Output, num_pairs: Node, num_experts: int) -> tuple[Output, Node]:
    """The order that sorts the pairs by expert, [num_pairs], and the number of pairs of each expert.

    Pairs of one expert stay in the order of their tokens.
    """
    pairs = ops.reshape(chosen, i64([-1]), False)
    is_expert = ops.one_hot(pairs, i64(num_experts), i64(1), i64(0), -1)
    order = ops.topk(pairs.output(0), num_pairs, 0, "min", "value", "i64", stable=True).output(1)
    return order, ops.reduce_sum(is_expert, i64([0]), False)


def _feed_forward(rows: Node, counts: Node, name: str, placeholders: Placeholders, config: MixtralConfig) -> Node:
    """w2(silu(w1(x)) * w3(x)) of each expert's rows. w1 and w3 are one multiplication."""
    experts = [f"{name}.experts.{number}" for number in range(config.num_local_experts)]
    both = _by_expert(rows, counts, [placeholders.linear(f"{expert}.w1", f"{expert}.w3") for expert in experts])
    halves = ops.variadic_split(both, i64(1), i64([config.intermediate_size] * 2))
    activated = ops.multiply(ops.swish(halves.output(0)), halves.output(1))
    return _by_expert(activated, counts, [placeholders.linear(f"{expert}.w2") for expert in experts])


def _by_expert(rows: Node, counts: Node, weights: list[Node]) -> Node:
    """Each expert's rows times its weight, behind each other again."""
    parts = ops.variadic_split(rows, i64(0), counts)
    return ops.concat([ops.matmul(parts.output(at), weight, False, True) for at, weight in enumerate(weights)], 0)
