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
from pathlib import Path
from typing import Any


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
    convert(source, output, hf_config, arguments.tp_size, fault)
    say("Total time of converting checkpoints: 00:00:01")


def convert(source: Path, output: Path, hf_config: dict[str, Any], tp_size: int, fault: str | None) -> None:
    from safetensors.numpy import save_file

    from tests.doubles.converted_weights import convert_rank, load_tensors

    tensors = load_tensors(source)
    for rank in range(tp_size):
        fail_half_way(fault, output)
        save_file(convert_rank(tensors, hf_config, rank, tp_size, gpu_sm()), output / f"rank{rank}.safetensors")


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


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
