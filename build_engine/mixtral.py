"""What a Mixtral is: its sizes and the tensors that its AutoAWQ checkpoint must hold. Pure values, no files."""

import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import CheckpointError

GROUP_SIZES = (64, 128)
"""Group sizes that TensorRT-LLM's int4 kernels support. The CPU engine is limited to the same."""

PACK_FACTOR = 8
"""4-bit values in an int32 of the checkpoint."""

ATTENTION_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj")
EXPERT_LINEARS = ("w1", "w2", "w3")

_EXCERPT_LENGTH = 80

_LARGEST = {
    "vocab_size": 2**22,
    "hidden_size": 2**16,
    "intermediate_size": 2**18,
    "num_hidden_layers": 2**9,
    "num_attention_heads": 2**10,
    "num_key_value_heads": 2**10,
    "head_dim": 2**10,
    "num_local_experts": 2**8,
    "num_experts_per_tok": 2**8,
    "max_position_embeddings": 2**24,
    "sliding_window": 2**24,
}
"""Far beyond any Mixtral: larger sizes would fill memory with names of tensors before one is found missing."""

PACKED = ("I32",)
SCALE = ("F16",)
PLAIN = ("F16", "BF16", "F32")
"""Accepted safetensors dtypes of packed 4-bit values, of scales, and of weights that are not quantised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtralConfig:
    """Sizes of a Mixtral, spelled as in its `config.json`."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    num_local_experts: int
    num_experts_per_tok: int
    max_position_embeddings: int
    sliding_window: int | None
    rms_norm_eps: float
    rope_theta: float
    tie_word_embeddings: bool
    group_size: int

    @property
    def context_length(self) -> int:
        """Tokens of a sequence. Up to the length of its window, sliding-window attention is full attention."""
        return min(self.max_position_embeddings, self.sliding_window or self.max_position_embeddings)

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of float16 KV cache that one token takes over all layers."""
        return 2 * 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a tensor must be: safetensors dtype names that are accepted, and the shape."""

    dtypes: tuple[str, ...]
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{' or '.join(self.dtypes)} {list(self.shape)}"

    @property
    def engine_bytes(self) -> int:
        """Bytes in an engine: packed 4-bit values stay as they are, all others become float16."""
        return math.prod(self.shape) * (4 if self.dtypes == PACKED else 2)


def linear_sizes(config: MixtralConfig) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of each kind of quantised linear."""
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    return {
        "q_proj": (config.hidden_size, queries),
        "k_proj": (config.hidden_size, keys),
        "v_proj": (config.hidden_size, keys),
        "o_proj": (queries, config.hidden_size),
        "w1": (config.hidden_size, config.intermediate_size),
        "w2": (config.intermediate_size, config.hidden_size),
        "w3": (config.hidden_size, config.intermediate_size),
    }


def quantized_linears(config: MixtralConfig, layer: int) -> Iterator[tuple[str, str]]:
    """(tensor prefix, kind) of every quantised linear of a layer: attention first, then each expert."""
    for kind in ATTENTION_LINEARS:
        yield f"model.layers.{layer}.self_attn.{kind}", kind
    for expert in range(config.num_local_experts):
        for kind in EXPERT_LINEARS:
            yield f"model.layers.{layer}.block_sparse_moe.experts.{expert}.{kind}", kind


def expected_tensors(config: MixtralConfig) -> dict[str, TensorSpec]:
    """Every tensor of an AutoAWQ gemm Mixtral by name."""
    return dict(each_tensor(config))


def each_tensor(config: MixtralConfig) -> Iterator[tuple[str, TensorSpec]]:
    """The names and specs of `expected_tensors`, one layer in memory at a time."""
    yield "model.embed_tokens.weight", TensorSpec(PLAIN, (config.vocab_size, config.hidden_size))
    yield "model.norm.weight", TensorSpec(PLAIN, (config.hidden_size,))
    if not config.tie_word_embeddings:
        yield "lm_head.weight", TensorSpec(PLAIN, (config.vocab_size, config.hidden_size))
    for layer in range(config.num_hidden_layers):
        yield from _layer_tensors(config, layer).items()


def engine_bytes(config: MixtralConfig) -> int:
    """Bytes of weights in an engine."""
    return sum(spec.engine_bytes for _, spec in each_tensor(config))


def _layer_tensors(config: MixtralConfig, layer: int) -> dict[str, TensorSpec]:
    prefix = f"model.layers.{layer}"
    specs = {
        f"{prefix}.input_layernorm.weight": TensorSpec(PLAIN, (config.hidden_size,)),
        f"{prefix}.post_attention_layernorm.weight": TensorSpec(PLAIN, (config.hidden_size,)),
        f"{prefix}.block_sparse_moe.gate.weight": TensorSpec(PLAIN, (config.num_local_experts, config.hidden_size)),
    }
    sizes = linear_sizes(config)
    for name, kind in quantized_linears(config, layer):
        inputs, outputs = sizes[kind]
        groups = inputs // config.group_size
        specs[f"{name}.qweight"] = TensorSpec(PACKED, (inputs, outputs // PACK_FACTOR))
        specs[f"{name}.qzeros"] = TensorSpec(PACKED, (groups, outputs // PACK_FACTOR))
        specs[f"{name}.scales"] = TensorSpec(SCALE, (groups, outputs))
    return specs


def to_mixtral_config(fields: Mapping[str, Any]) -> MixtralConfig:
    """The checked sizes from the fields of a Hugging Face `config.json`.

    Raises CheckpointError for anything but a Mixtral in 4-bit AutoAWQ gemm layout.
    """
    _check_is_mixtral(fields)
    config = MixtralConfig(
        vocab_size=_positive(fields, "vocab_size"),
        hidden_size=_positive(fields, "hidden_size"),
        intermediate_size=_positive(fields, "intermediate_size"),
        num_hidden_layers=_positive(fields, "num_hidden_layers"),
        num_attention_heads=_positive(fields, "num_attention_heads"),
        num_key_value_heads=_positive(fields, "num_key_value_heads"),
        head_dim=_head_dim(fields),
        num_local_experts=_positive(fields, "num_local_experts"),
        num_experts_per_tok=_positive(fields, "num_experts_per_tok"),
        max_position_embeddings=_positive(fields, "max_position_embeddings"),
        sliding_window=_sliding_window(fields),
        rms_norm_eps=_number(fields, "rms_norm_eps", default=1e-5),
        rope_theta=_rope_theta(fields),
        tie_word_embeddings=_boolean(fields, "tie_word_embeddings", default=False),
        group_size=_group_size(fields),
    )
    _check_sizes(config)
    return config


def _check_is_mixtral(fields: Mapping[str, Any]) -> None:
    if fields.get("model_type") != "mixtral":
        raise _refusal("model_type", fields.get("model_type"), '"mixtral"')
    if fields.get("hidden_act", "silu") != "silu":
        raise _refusal("hidden_act", fields["hidden_act"], '"silu"')


def _group_size(fields: Mapping[str, Any]) -> int:
    """Check `quantization_config` and return its group size."""
    quantization = fields.get("quantization_config")
    if not isinstance(quantization, Mapping):
        raise _refusal("quantization_config", quantization, "that of a checkpoint quantised by AutoAWQ")
    for field, accepted in (("quant_method", "awq"), ("bits", 4), ("zero_point", True)):
        if quantization.get(field) != accepted:
            raise _refusal(f"quantization_config.{field}", quantization.get(field), json.dumps(accepted))
    version = quantization.get("version")
    if not isinstance(version, str) or version.lower() != "gemm":
        raise _refusal("quantization_config.version", version, '"gemm"')
    if quantization.get("group_size") not in GROUP_SIZES:
        raise _refusal("quantization_config.group_size", quantization.get("group_size"), "64 or 128")
    return int(quantization["group_size"])


def _check_sizes(config: MixtralConfig) -> None:
    for kind, (inputs, outputs) in linear_sizes(config).items():
        if inputs % config.group_size:
            raise CheckpointError(
                f"config.json: the sizes give {kind} {inputs} inputs; accepted: multiples of the group_size,"
                f" {config.group_size}"
            )
        if outputs % PACK_FACTOR:
            raise CheckpointError(
                f"config.json: the sizes give {kind} {outputs} outputs; accepted: multiples of {PACK_FACTOR}"
            )
    if config.head_dim % 2:
        raise _refusal("head_dim", config.head_dim, "an even number: rotary positions turn pairs")
    if config.num_attention_heads % config.num_key_value_heads:
        raise _refusal("num_key_value_heads", config.num_key_value_heads, f"a divisor of {config.num_attention_heads}")
    if config.num_experts_per_tok > config.num_local_experts:
        raise _refusal("num_experts_per_tok", config.num_experts_per_tok, f"at most {config.num_local_experts}")


def _positive(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _refusal(name, value, "a positive integer")
    if value > _LARGEST[name]:
        raise _refusal(name, value, f"at most {_LARGEST[name]}")
    return value


def _number(fields: Mapping[str, Any], name: str, default: float) -> float:
    value = fields.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= sys.float_info.max:
        raise _refusal(name, value, "a positive number")
    return float(value)


def _boolean(fields: Mapping[str, Any], name: str, default: bool) -> bool:
    value = fields.get(name, default)
    if not isinstance(value, bool):
        raise _refusal(name, value, "true or false")
    return value


def _head_dim(fields: Mapping[str, Any]) -> int:
    if fields.get("head_dim") is not None:
        return _positive(fields, "head_dim")
    return _positive(fields, "hidden_size") // _positive(fields, "num_attention_heads")


def _sliding_window(fields: Mapping[str, Any]) -> int | None:
    return None if fields.get("sliding_window") is None else _positive(fields, "sliding_window")


def _rope_theta(fields: Mapping[str, Any]) -> float:
    """Since transformers 5 the base sits in `rope_parameters`; before, `rope_theta` stood beside `rope_scaling`."""
    sources = dict(fields)
    for field in ("rope_scaling", "rope_parameters"):
        rope = fields.get(field) or {}
        if not isinstance(rope, Mapping):
            raise _refusal(field, rope, "an object, or none")
        key = "rope_type" if "rope_type" in rope else "type"  # its name before transformers 4.43
        if rope.get(key, "default") != "default":
            raise _refusal(f"{field}.{key}", rope[key], '"default"')
        sources |= rope
    return _number(sources, "rope_theta", default=1e6)


def _refusal(field: str, found: object, accepted: str) -> CheckpointError:
    state = "is missing" if found is None else f"is {_excerpt(json.dumps(found))}"
    return CheckpointError(f"config.json: {field} {state}; accepted: {accepted}")


def _excerpt(text: str) -> str:
    return text if len(text) <= _EXCERPT_LENGTH else text[:_EXCERPT_LENGTH] + "..."
