"""The TensorRT-LLM checkpoint of a Mixtral in W4A16_GPTQ: names, dtypes, shapes, and where each 4-bit value is.

Pure. Notation: K inputs and N outputs of a linear, both per rank. Sources, TensorRT-LLM 1.2: models/llama and
layers/moe.py (names, fusion), quantization/functional.py (the order of the values), mapping.py (the split).
"""

import numpy as np
from numpy.typing import NDArray

from build_engine.awq import Int64, Uint8
from build_engine.mixtral import PACK_FACTOR, MixtralConfig, TensorSpec, linear_sizes

PACKED_PER_FLOAT16 = 4
"""4-bit values in what the converter declares as one float16."""
TENSOR_PARALLEL_SIZES = (1, 2, 4, 8)
ROTARY_FREQUENCIES = "rotary_inv_freq"
ROTARY_TABLE = "embed_positions_for_gpt_attention"

_ROW_ORDER = np.concatenate([np.array([0, 1, 8, 9, 16, 17, 24, 25]) + first for first in (0, 2, 4, 6)])
"""A warp reads 32 rows of int4 weights in the order of the tensor core's registers."""
_NIBBLE_ORDER = np.array([0, 2, 4, 6, 1, 3, 5, 7])
"""The conversion from int4 to float16 takes the even values of eight first."""
_TILE_ROWS = 64
_TILE_COLUMNS = 4
_TILE_BYTES = _TILE_ROWS // 2
"""Bytes of one column in a tile."""


def split_problem(config: MixtralConfig, tp_size: int) -> str | None:
    """Why the tensors cannot be split among so many GPUs without padding, or None.

    TensorRT-LLM pads a linear whose sizes on a rank are not multiples of max(64, group_size), and only logs a warning.
    """
    if tp_size not in TENSOR_PARALLEL_SIZES:
        return f"tensor_parallel_size is {tp_size}; accepted: 1, 2, 4 or 8"
    for name in ("num_attention_heads", "num_key_value_heads"):
        if getattr(config, name) % tp_size:
            return f"tensor_parallel_size {tp_size} does not divide {name} {getattr(config, name)}"
    if config.head_dim % PACK_FACTOR:
        return f"head_dim is {config.head_dim}; accepted: multiples of {PACK_FACTOR}"
    unit = max(_TILE_ROWS, config.group_size)
    for name, size in _split_sizes(config).items():
        if size % (unit * tp_size):
            return f"tensor_parallel_size {tp_size} would pad {name} of {size}; accepted: multiples of {unit * tp_size}"
    return None


def _split_sizes(config: MixtralConfig) -> dict[str, int]:
    sizes = linear_sizes(config)
    return {
        "attention.qkv outputs": sum(sizes[kind][1] for kind in ("q_proj", "k_proj", "v_proj")),
        "attention.dense inputs": sizes["o_proj"][0],
        "intermediate_size": config.intermediate_size,
    }


def rank_tensors(config: MixtralConfig, tp_size: int) -> dict[str, TensorSpec]:
    """Every tensor of `rank{r}.safetensors` by name; the same for each rank."""
    hidden, vocabulary = config.hidden_size, config.vocab_size
    specs = {
        "transformer.vocab_embedding.weight": _f16(vocabulary, hidden),
        "transformer.ln_f.weight": _f16(hidden),
        "lm_head.weight": _f16(-(-vocabulary // tp_size), hidden),
    }
    for layer in range(config.num_hidden_layers):
        specs |= _layer_tensors(config, tp_size, f"transformer.layers.{layer}")
    return specs


def constant_tensors(config: MixtralConfig) -> dict[str, TensorSpec]:
    """The rotary tables, which the converter saves with the weights and the builder can also compute.

    Source: `create_attention_const_params` in layers/attention.py and `save_checkpoint` in models/modeling_utils.py.
    """
    positions, size = config.max_position_embeddings, config.head_dim
    return {
        "embed_positions": TensorSpec(("F32",), (1, positions, size)),
        ROTARY_FREQUENCIES: TensorSpec(("F32",), (size // 2,)),
        ROTARY_TABLE: TensorSpec(("F32",), (1, positions * size)),
    }


def rotary_frequencies(config: MixtralConfig) -> NDArray[np.float64]:
    """Radians per position, [head_dim / 2]."""
    return np.asarray(config.rope_theta ** (-np.arange(0, config.head_dim, 2) / config.head_dim))


def _layer_tensors(config: MixtralConfig, tp_size: int, prefix: str) -> dict[str, TensorSpec]:
    hidden, inner, experts = config.hidden_size, config.intermediate_size, config.num_local_experts
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    group = config.group_size
    return {
        f"{prefix}.input_layernorm.weight": _f16(hidden),
        f"{prefix}.post_layernorm.weight": _f16(hidden),
        f"{prefix}.mlp.router.weight": TensorSpec(("F32",), (experts, hidden)),
        **_linear(f"{prefix}.attention.qkv", hidden, (queries + 2 * keys) // tp_size, group),
        **_linear(f"{prefix}.attention.dense", queries // tp_size, hidden, group),
        **_linear(f"{prefix}.mlp.fc", hidden, 2 * inner // tp_size, group, experts),
        **_linear(f"{prefix}.mlp.proj", inner // tp_size, hidden, group, experts),
    }


def _linear(name: str, inputs: int, outputs: int, group_size: int, *stack: int) -> dict[str, TensorSpec]:
    """The tensors of a quantised linear; four int4 are declared as one float16."""
    return {
        f"{name}.weight": _f16(*stack, inputs, outputs // PACKED_PER_FLOAT16),
        f"{name}.weights_scaling_factor": _f16(*stack, inputs // group_size, outputs),
        f"{name}.zero": _f16(*stack, inputs // group_size, outputs),
    }


def _f16(*shape: int) -> TensorSpec:
    return TensorSpec(("F16",), shape)


def input_order(inputs: int) -> Int64:
    """[K]: the inputs k whose 4-bit values a converted matrix holds for one output, in its order.

    Byte i of an output has input 2i of this order in its low nibble, and 2i + 1 in its high nibble. The values are
    AutoAWQ's unsigned ones: the converter subtracts 8 for the signed type and adds 8 for the kernel. Needs K % 64 == 0.
    """
    row = np.arange(inputs)
    row = row - row % 8 + _NIBBLE_ORDER[row % 8]
    order: Int64 = row - row % 32 + _ROW_ORDER[row % 32]
    return order


def channel_bytes(packed: Uint8, channel: int, *, interleaved: bool) -> Uint8:
    """The bytes of outputs `channel`, 8 + `channel`, 16 + `channel`, ... of a converted matrix uint8 [K, N/2].

    A view [N/8, K/64, 32], each output's bytes in order. `interleaved` matrices are stored in tiles of four outputs and
    64 inputs. Needs K % 64 == 0 and N % 8 == 0.
    """
    octets, tiles = 2 * packed.shape[1] // PACK_FACTOR, packed.shape[0] // _TILE_ROWS
    if not interleaved:
        return packed.reshape(octets, PACK_FACTOR, tiles, _TILE_BYTES)[:, channel]
    of_octet, of_tile = divmod(channel, _TILE_COLUMNS)
    columns = packed.reshape(octets, PACK_FACTOR // _TILE_COLUMNS, tiles, _TILE_COLUMNS, _TILE_BYTES)
    return columns[:, of_octet, :, of_tile]
