#!/usr/bin/env python3
"""Stands for examples/models/core/llama/convert_checkpoint.py of TensorRT-LLM 1.2: same options, same files.

Splits, fuses and reorders the weights of a Mixtral, and nothing else of the real one. DOUBLE_FAULT makes it fail.
"""

import argparse
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  registers bfloat16 with numpy, which safetensors needs to read BF16 tensors
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from tests.doubles.staged_layout import preprocess, unpack_awq

Tensors = dict[str, NDArray[Any]]
Triple = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("model_dir", "meta_ckpt_dir", "quant_ckpt_path", "calib_dataset", "hidden_act", "log_level"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--output_dir", default="tllm_checkpoint")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float16", "bfloat16", "float32"])
    for name in ("tp_size", "pp_size", "cp_size", "workers"):
        parser.add_argument(f"--{name}", type=int, default=1)
    for name in ("moe_tp_size", "moe_ep_size"):
        parser.add_argument(f"--{name}", type=int, default=-1)
    parser.add_argument("--weight_only_precision", choices=["int8", "int4", "int8_gptq", "int4_gptq", "int4_awq"])
    parser.add_argument("--group_size", type=int, default=128)
    for name in ("use_weight_only", "int8_kv_cache", "fp8_kv_cache", "load_by_shard", "use_parallel_embedding"):
        parser.add_argument(f"--{name}", action="store_true")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    assert arguments.dtype == "float16", "this double knows float16 only"
    assert not arguments.use_weight_only, "AutoAWQ needs no --use_weight_only"
    say("[TensorRT-LLM] TensorRT LLM version: 1.2.1")
    fault = os.environ.get("DOUBLE_FAULT")
    source, output = Path(arguments.model_dir), Path(arguments.output_dir)
    hf_config = json.loads((source / "config.json").read_text())
    config = to_config(hf_config, arguments.tp_size, quantized=fault != "unquantized")
    if fault == "newer_release":
        config["new_option"] = None
    (output / "config.json").write_text(json.dumps(config, indent=4))
    tensors: Tensors = {}
    for file in source.glob("*.safetensors"):
        tensors |= load_file(file)
    for rank in range(arguments.tp_size):
        fail_half_way(fault, output)
        converted = convert_rank(tensors, hf_config, rank, arguments.tp_size, gpu_sm())
        save_file(converted, output / f"rank{rank}.safetensors")
    say("Total time of converting checkpoints: 00:00:01")


def fail_half_way(fault: str | None, output: Path) -> None:
    if fault == "disk_full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(output / "rank0.safetensors"))
    if fault in ("converter_killed", "converter_hangs"):
        (output / "rank0.safetensors").write_bytes(b"\0" * 1000)
        say("half-way")
    if fault == "converter_killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "converter_hangs":
        time.sleep(600)


def gpu_sm() -> int:
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    return round(10 * float(subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]))


def to_config(hf: dict[str, Any], tp_size: int, *, quantized: bool) -> dict[str, Any]:
    """What `LLaMAConfig.to_dict` gives, in its order."""
    quantization: dict[str, Any] = {
        "quant_algo": None,
        "kv_cache_quant_algo": None,
        "group_size": 128,
        "smoothquant_val": 0.5,
        "clamp_val": None,
        "use_meta_recipe": False,
        "has_zero_point": False,
        "pre_quant_scale": False,
        "exclude_modules": None,
        "mamba_ssm_cache_dtype": None,
    }
    # The real one also hands use_autoawq to its loader.
    if quantized and hf["quantization_config"]["quant_method"] == "awq":
        quantization["quant_algo"] = "W4A16_GPTQ"
        quantization["group_size"] = hf["quantization_config"]["group_size"]
        quantization["has_zero_point"] = hf["quantization_config"]["zero_point"]
    head_size = hf.get("head_dim") or hf["hidden_size"] // hf["num_attention_heads"]
    return {
        "mlp_bias": False,
        "attn_bias": False,
        "rotary_base": hf["rope_theta"],
        "rotary_scaling": hf.get("rope_scaling"),
        "residual_mlp": False,
        "disable_weight_only_quant_plugin": False,
        "moe": {
            "num_experts": hf["num_local_experts"],
            "shared_expert_intermediate_size": 0,
            "top_k": hf["num_experts_per_tok"],
            "normalization_mode": 1,
            "sparse_mixer_epsilon": 0.01,
            "tp_mode": 0,
            "device_limited_n_group": 0,
            "device_limited_topk_group": 0,
            "device_limited_routed_scaling_factor": 1.0,
        },
        "remove_duplicated_kv_heads": False,
        "fc_after_embed": False,
        "use_input_layernorm_in_first_layer": True,
        "use_last_layernorm": True,
        "layer_idx_offset": 0,
        "embedding_multiplier": 1.0,
        "attention_multiplier": 1.0,
        "residual_multiplier": 1.0,
        "output_multiplier_scale": 1.0,
        "has_partial_lora_mask": False,
        "architecture": hf["architectures"][0],
        "dtype": "float16",
        "vocab_size": hf["vocab_size"],
        "hidden_size": hf["hidden_size"],
        "num_hidden_layers": hf["num_hidden_layers"],
        "num_attention_heads": hf["num_attention_heads"],
        "hidden_act": "swiglu",
        "logits_dtype": "float32",
        "norm_epsilon": hf["rms_norm_eps"],
        "runtime_defaults": None,
        "position_embedding_type": "rope_gpt_neox",
        "num_key_value_heads": hf["num_key_value_heads"],
        "intermediate_size": hf["intermediate_size"],
        "max_position_embeddings": hf["max_position_embeddings"],
        "mapping": {
            "world_size": tp_size,
            "gpus_per_node": 8,
            "cp_size": 1,
            "tp_size": tp_size,
            "pp_size": 1,
            "moe_tp_size": tp_size,
            "moe_cluster_size": 1,
            "moe_ep_size": 1,
            "attn_tp_size": -1,
            "attn_cp_size": -1,
            "cp_config": {},
            "enable_attention_dp": False,
            "enable_lm_head_tp_in_adp": False,
        },
        "quantization": quantization,
        "use_parallel_embedding": False,
        "embedding_sharding_dim": 0,
        "head_size": head_size,
        "qk_layernorm": False,
        "rotary_embedding_dim": head_size,
        "tie_word_embeddings": hf.get("tie_word_embeddings", False),
    }


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


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
