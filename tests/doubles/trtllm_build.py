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

FLAGS = ("context_fmha", "remove_input_padding", "use_paged_context_fmha", "use_fp8_context_fmha", "multiple_profiles")
PLUGINS = ("gpt_attention_plugin", "gemm_plugin", "moe_plugin", "nccl_plugin", "lora_plugin")


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
    for name in ("dry_run", "monitor_memory", "strip_plan", "weight_streaming", "fast_build"):
        parser.add_argument(f"--{name}", action="store_true")
    for name in FLAGS:
        default = "disable" if name == "multiple_profiles" else "enable"
        parser.add_argument(f"--{name}", choices=["enable", "disable"], default=default)
    for name in PLUGINS:
        parser.add_argument(f"--{name}", choices=["auto", "float16", "bfloat16", "float32", "disable"])
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
    engine = {
        "version": "1.1.0" if fault == "other_version" else "1.2.1",
        "pretrained_config": config,
        "build_config": to_build_config(arguments, fault),
    }
    (output / "config.json").write_text(json.dumps(engine, indent=4))
    Path(arguments.output_timing_cache or "model.cache").write_bytes(b"tactics")
    say("[TRT-LLM] [I] Total time of building all engines: 00:00:01")
    return 0


def to_build_config(arguments: argparse.Namespace, fault: str | None) -> dict[str, Any]:
    plugins = {flag: getattr(arguments, flag) == "enable" for flag in FLAGS}
    if fault == "paged_context_off":
        plugins["use_paged_context_fmha"] = False
    return {
        "max_input_len": arguments.max_input_len,
        "max_seq_len": arguments.max_seq_len,
        "max_batch_size": 8 if fault == "other_limits" else arguments.max_batch_size,
        "max_beam_width": arguments.max_beam_width,
        "max_num_tokens": arguments.max_num_tokens,
        "kv_cache_type": arguments.kv_cache_type,
        "plugin_config": {
            **plugins,
            "gemm_plugin": "float16" if arguments.gemm_plugin == "auto" else None,
            "tokens_per_block": arguments.tokens_per_block,
        },
    }


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
