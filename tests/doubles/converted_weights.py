"""The weights of a Mixtral as TensorRT-LLM's converter writes them: split among ranks, fused and reordered.

For convert_checkpoint.py, apart from its options: each build asks for its --help, which needs none of these imports.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  registers bfloat16 with numpy, which safetensors needs to read BF16 tensors
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from tests.doubles.staged_layout import preprocess, unpack_awq

Tensors = dict[str, NDArray[Any]]
Triple = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


def load_tensors(source: Path) -> Tensors:
    """All tensors of a checkpoint by name."""
    tensors: Tensors = {}
    for file in source.glob("*.safetensors"):
        tensors |= load_file(file)
    return tensors


def convert_rank(tensors: Tensors, hf: dict[str, Any], rank: int, tp_size: int, sm: int) -> Tensors:
    """All tensors of one rank's file."""
    vocabulary = -(-hf["vocab_size"] // tp_size)
    head = np.pad(tensors["lm_head.weight"].astype(np.float16), ((0, tp_size * vocabulary - hf["vocab_size"]), (0, 0)))
    converted: Tensors = {
        "transformer.vocab_embedding.weight": tensors["model.embed_tokens.weight"].astype(np.float16),
        "transformer.ln_f.weight": tensors["model.norm.weight"].astype(np.float16),
        "lm_head.weight": head[rank * vocabulary : (rank + 1) * vocabulary],
    }

    def columns(name: str) -> Triple:
        return split(tensors, name, rank, tp_size, axis=1)

    def rows(name: str) -> Triple:
        return split(tensors, name, rank, tp_size, axis=0)

    for layer in range(hf["num_hidden_layers"]):
        source, target = f"model.layers.{layer}", f"transformer.layers.{layer}"
        attention = f"{source}.self_attn"
        for norm, hf_norm in (("input_layernorm", "input_layernorm"), ("post_layernorm", "post_attention_layernorm")):
            converted[f"{target}.{norm}.weight"] = tensors[f"{source}.{hf_norm}.weight"].astype(np.float16)
        gate = tensors[f"{source}.block_sparse_moe.gate.weight"]
        converted[f"{target}.mlp.router.weight"] = gate.astype(np.float32)
        qkv = fuse([columns(f"{attention}.{name}_proj") for name in "qkv"])
        converted |= encode(f"{target}.attention.qkv", qkv, sm, stacked=False)
        converted |= encode(f"{target}.attention.dense", rows(f"{attention}.o_proj"), sm, stacked=False)
        experts = [f"{source}.block_sparse_moe.experts.{expert}" for expert in range(hf["num_local_experts"])]
        converted |= stack(f"{target}.mlp.fc", experts, lambda e: fuse([columns(f"{e}.w3"), columns(f"{e}.w1")]), sm)
        converted |= stack(f"{target}.mlp.proj", experts, lambda e: rows(f"{e}.w2"), sm)
    return converted | rope_constants(hf)


def rope_constants(hf: dict[str, Any]) -> Tensors:
    """Buffers that are saved with the weights. The first, whose base is not the model's, is never read."""
    size = hf.get("head_dim") or hf["hidden_size"] // hf["num_attention_heads"]
    positions = np.arange(hf["max_position_embeddings"], dtype=np.float32)

    def frequencies(base: float) -> NDArray[np.float32]:
        values: NDArray[np.float32] = (1.0 / base ** (np.arange(0, size, 2) / size)).astype(np.float32)
        return values

    unused = np.outer(positions, frequencies(10000.0))
    angles = np.outer(positions, frequencies(hf["rope_theta"]))
    return {
        "embed_positions": np.concatenate([np.sin(unused), np.cos(unused)], axis=1)[None],
        "rotary_inv_freq": frequencies(hf["rope_theta"]),
        "embed_positions_for_gpt_attention": np.stack([np.cos(angles), np.sin(angles)], axis=-1).reshape(1, -1),
    }


def split(tensors: Tensors, name: str, rank: int, tp_size: int, axis: int) -> Triple:
    qweight, qzeros, scales = (
        np.array_split(tensors[f"{name}.{part}"], tp_size, axis=axis)[rank] for part in ("qweight", "qzeros", "scales")
    )
    return qweight, qzeros, scales


def fuse(triples: list[Triple]) -> Triple:
    qweight, qzeros, scales = (np.concatenate(part, axis=1) for part in zip(*triples, strict=True))
    return qweight, qzeros, scales


def encode(name: str, triple: Triple, sm: int, *, stacked: bool) -> Tensors:
    qweight, qzeros, scales = triple
    packed = preprocess(unpack_awq(qweight), sm, stacked=stacked)
    zero = (np.float16(8) - unpack_awq(qzeros).astype(np.float16)) * scales
    return {
        f"{name}.weight": packed.view(np.float16),
        f"{name}.weights_scaling_factor": np.ascontiguousarray(scales),
        f"{name}.zero": zero.astype(np.float16),
    }


def stack(name: str, experts: list[str], read: Callable[[str], Triple], sm: int) -> Tensors:
    encoded = [encode(name, read(expert), sm, stacked=True) for expert in experts]
    return {part: np.stack([expert[part] for expert in encoded]) for part in encoded[0]}
