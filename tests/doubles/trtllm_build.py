#!/usr/bin/env python3
"""Stands for `trtllm-build` of TensorRT-LLM 1.2: same options, same files. DOUBLE_FAULT makes it fail."""

import argparse
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

FLAGS = {
    "context_fmha": True,
    "bert_context_fmha_fp32_acc": False,
    "remove_input_padding": True,
    "norm_quant_fusion": False,
    "reduce_fusion": False,
    "user_buffer": False,
    "use_paged_context_fmha": True,
    "use_fp8_context_fmha": True,
    "fuse_fp4_quant": False,
    "multiple_profiles": False,
    "paged_state": True,
    "streamingllm": False,
    "use_fused_mlp": True,
    "pp_reduce_scatter": False,
}
"""Options that are enabled or disabled, with their defaults."""
PLUGINS = {
    "bert_attention_plugin": "auto",
    "gpt_attention_plugin": "auto",
    "gemm_plugin": None,
    "gemm_swiglu_plugin": None,
    "fp8_rowwise_gemm_plugin": None,
    "nccl_plugin": "auto",
    "lora_plugin": None,
    "moe_plugin": "auto",
    "mamba_conv1d_plugin": "auto",
    "low_latency_gemm_plugin": None,
    "low_latency_gemm_swiglu_plugin": None,
    "gemm_allreduce_plugin": None,
}
"""Options that take a dtype, with their defaults."""


GATHER = ("gather_context_logits", "gather_generation_logits")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("checkpoint_dir", "model_config", "build_config", "input_timing_cache", "output_timing_cache"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--output_dir", default="engine_outputs")
    parser.add_argument("--max_batch_size", type=int, default=2048)
    parser.add_argument("--max_input_len", type=int, default=1024)
    parser.add_argument("--max_seq_len", "--max_decoder_seq_len", dest="max_seq_len", type=int)
    parser.add_argument("--max_beam_width", type=int, default=1)
    parser.add_argument("--max_num_tokens", type=int, default=8192)
    parser.add_argument("--opt_num_tokens", type=int)
    parser.add_argument("--tokens_per_block", type=int, default=32)
    parser.add_argument("--kv_cache_type", type=str.upper, choices=["CONTINUOUS", "PAGED", "DISABLED"])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--log_level", default="info")
    for name in ("dry_run", "monitor_memory", "strip_plan", "weight_streaming", "fast_build", *GATHER):
        parser.add_argument(f"--{name}", action="store_true")
    for name, enabled in FLAGS.items():
        parser.add_argument(f"--{name}", choices=["enable", "disable"], default="enable" if enabled else "disable")
    for name, dtype in PLUGINS.items():
        parser.add_argument(f"--{name}", choices=["auto", "float16", "bfloat16", "float32", "disable"], default=dtype)
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    fault = os.environ.get("DOUBLE_FAULT")
    say("[TRT-LLM] [I] Compute capability: (9, 0)")
    checkpoint, output = Path(arguments.checkpoint_dir), Path(arguments.output_dir)
    config = json.loads((checkpoint / "config.json").read_text())
    if fault == "builder_out_of_memory":
        say("[TRT] [E] [defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)")
        return 1
    for rank in range(config["mapping"]["world_size"]):
        weights = (checkpoint / f"rank{rank}.safetensors").read_bytes()
        (output / f"rank{rank}.engine").write_bytes(hashlib.sha256(weights).digest() * 1000)
        say(f"[TRT-LLM] [I] Serializing engine to {output}/rank{rank}.engine...")
        if fault == "builder_hangs":
            say("half-way")
            time.sleep(600)
    if fault == "rank_without_engine":
        (output / "rank0.engine").unlink()
    config["mapping"] |= {"attn_tp_size": config["mapping"]["tp_size"], "attn_cp_size": 1}
    engine = {
        "version": {"other_version": "1.1.0", "newer_release": "1.2.1.2604"}.get(fault or "", "1.2.1"),
        "pretrained_config": config,
        "build_config": to_build_config(arguments, config["mapping"]["world_size"], fault),
    }
    (output / "config.json").write_text(json.dumps(engine, indent=4))
    Path(arguments.output_timing_cache or "model.cache").write_bytes(b"tactics")
    say("[TRT-LLM] [I] Total time of building all engines: 00:00:01")
    return 0


def to_build_config(arguments: argparse.Namespace, world_size: int, fault: str | None) -> dict[str, Any]:
    """What `EngineConfig.to_dict` gives of a `BuildConfig`, in its order, as `build` leaves it."""
    return {
        "max_input_len": min(arguments.max_input_len, arguments.max_seq_len),
        "max_seq_len": arguments.max_seq_len,
        "opt_batch_size": 8,
        "max_batch_size": 8 if fault == "other_limits" else arguments.max_batch_size,
        "max_beam_width": arguments.max_beam_width,
        "max_num_tokens": arguments.max_num_tokens,
        "opt_num_tokens": arguments.opt_num_tokens,
        "max_prompt_embedding_table_size": 0,
        "kv_cache_type": arguments.kv_cache_type,
        "gather_context_logits": arguments.gather_context_logits,
        "gather_generation_logits": arguments.gather_generation_logits,
        "strongly_typed": True,
        "force_num_profiles": None,
        "profiling_verbosity": "layer_names_only",
        "enable_debug_output": False,
        "max_draft_len": 0,
        "speculative_decoding_mode": 1,
        "use_refit": False,
        "input_timing_cache": arguments.input_timing_cache,
        "output_timing_cache": arguments.output_timing_cache,
        "lora_config": {
            "lora_dir": [],
            "lora_ckpt_source": "hf",
            "max_lora_rank": 64,
            "lora_target_modules": [],
            "trtllm_modules_to_hf_modules": {},
            "max_loras": None,
            "max_cpu_loras": None,
            "swap_gate_up_proj_lora_b_weight": True,
        },
        "weight_sparsity": False,
        "weight_streaming": arguments.weight_streaming,
        "plugin_config": to_plugin_config(arguments, world_size, fault),
        "use_strip_plan": arguments.strip_plan,
        "max_encoder_input_len": 1024,
        "monitor_memory": arguments.monitor_memory,
        "use_mrope": False,
        **({"new_option": None} if fault == "newer_release" else {}),
    }


def to_plugin_config(arguments: argparse.Namespace, world_size: int, fault: str | None) -> dict[str, Any]:
    given = {name: getattr(arguments, name) for name in PLUGINS}
    plugins = {name: None if value == "disable" else value for name, value in given.items()}
    plugins["nccl_plugin"] = "float16" if world_size > 1 else None
    flags = {name: getattr(arguments, name) == "enable" for name in FLAGS}
    # FP8 attention needs FP8 weights; the other state is for models without attention.
    flags |= {"use_fp8_context_fmha": False, "paged_state": False}
    if fault == "paged_context_off":
        flags["use_paged_context_fmha"] = False
    return {
        "dtype": "float16",
        **plugins,
        "qserve_gemm_plugin": None,
        "identity_plugin": None,
        "dora_plugin": False,
        "weight_only_groupwise_quant_matmul_plugin": "float16",
        "weight_only_quant_matmul_plugin": None,
        "smooth_quant_plugins": True,
        "smooth_quant_gemm_plugin": None,
        "layernorm_quantization_plugin": None,
        "rmsnorm_quantization_plugin": None,
        "quantize_per_token_plugin": False,
        "quantize_tensor_plugin": False,
        **flags,
        "paged_kv_cache": arguments.kv_cache_type == "PAGED",
        "tokens_per_block": arguments.tokens_per_block,
        "manage_weights": arguments.fast_build,
    }


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
