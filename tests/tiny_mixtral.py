"""A Mixtral of a few hundred kilobytes with random, different experts, written as AutoAWQ ships it.

Of the product it uses only `pack_int4`. `tests/reference_mixtral.py` computes what this model computes.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from build_engine.awq import pack_int4

TINY: dict[str, Any] = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "vocab_size": 32000,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
    "hidden_act": "silu",
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True, "version": "gemm"},
}


def tiny_tensors(config: dict[str, Any], seed: int = 0) -> dict[str, NDArray[Any]]:
    """Random tensors of the sizes in `config`; every expert is different."""
    rng = np.random.default_rng(seed)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head_dim = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, keys = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    group_size = config["quantization_config"]["group_size"]
    tensors: dict[str, NDArray[Any]] = {}

    def plain(name: str, *shape: int, around: float = 0.0, spread: float = 1.0) -> None:
        tensors[name] = (around + spread * rng.standard_normal(shape)).astype(np.float16)

    def quantized(name: str, inputs: int, outputs: int) -> None:
        groups = inputs // group_size
        tensors[f"{name}.qweight"] = pack_int4(rng.integers(0, 16, (inputs, outputs), dtype=np.uint8))
        tensors[f"{name}.qzeros"] = pack_int4(rng.integers(5, 11, (groups, outputs), dtype=np.uint8))
        # Values of q - z have a spread of about 5; this keeps activations near one from layer to layer.
        scales = rng.uniform(0.5, 1.5, (groups, outputs)) / (5 * np.sqrt(inputs))
        tensors[f"{name}.scales"] = scales.astype(np.float16)

    plain("model.embed_tokens.weight", config["vocab_size"], hidden)
    plain("lm_head.weight", config["vocab_size"], hidden, spread=1 / np.sqrt(hidden))
    plain("model.norm.weight", hidden, around=1.0, spread=0.1)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        plain(f"{prefix}.input_layernorm.weight", hidden, around=1.0, spread=0.1)
        plain(f"{prefix}.post_attention_layernorm.weight", hidden, around=1.0, spread=0.1)
        plain(f"{prefix}.block_sparse_moe.gate.weight", config["num_local_experts"], hidden, spread=0.3)
        quantized(f"{prefix}.self_attn.q_proj", hidden, queries)
        quantized(f"{prefix}.self_attn.k_proj", hidden, keys)
        quantized(f"{prefix}.self_attn.v_proj", hidden, keys)
        quantized(f"{prefix}.self_attn.o_proj", queries, hidden)
        for expert in range(config["num_local_experts"]):
            experts = f"{prefix}.block_sparse_moe.experts.{expert}"
            quantized(f"{experts}.w1", hidden, inner)
            quantized(f"{experts}.w2", inner, hidden)
            quantized(f"{experts}.w3", hidden, inner)
    return tensors


def write_checkpoint(
    directory: Path, config: dict[str, Any], tensors: dict[str, NDArray[Any]], tokenizer_dir: Path, shards: int = 2
) -> Path:
    """Write config, sharded weights with their index, and the tokenizer files of `tokenizer_dir`."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config, indent=2))
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = names[shard::shards]
        save_file({name: tensors[name] for name in part}, directory / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    for file_path in tokenizer_dir.iterdir():
        (directory / file_path.name).write_bytes(file_path.read_bytes())
    return directory
