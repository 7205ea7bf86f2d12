"""The settings in config.pbtxt and the engine's manifest, and the pipeline for them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openvino_genai as genai
from generation import EngineLimits

KV_BLOCK_TOKENS = 32
"""Tokens in a block of the KV cache: that of OpenVINO GenAI 2026.4 on CPU."""
DEVICE_PROPERTIES = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f16"}
"""Exact where that costs no speed: bfloat16 was not faster, and an 8-bit KV cache changes greedy answers."""


class MissingEngine(Exception):
    """Nothing was built yet; the message says how to build it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What the engine is started with, in requests, tokens and blocks."""

    engine_dir: Path
    max_batch_size: int
    max_num_tokens: int
    num_kv_blocks: int
    dynamic_quantization_group_size: int
    limits: EngineLimits


def read_settings(args: dict[str, str]) -> EngineSettings:
    """The settings, from the arguments of Triton's `initialize`. Raises MissingEngine."""
    config = json.loads(args["model_config"])
    parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
    engine_dir = Path(args["model_repository"], args["model_version"], "engine")
    model = _read_manifest(engine_dir)["model"]
    return EngineSettings(
        engine_dir=engine_dir,
        max_batch_size=config["max_batch_size"],
        max_num_tokens=int(parameters["max_num_tokens"]),
        num_kv_blocks=int(parameters["kv_cache_bytes"]) // (KV_BLOCK_TOKENS * model["kv_bytes_per_token"]),
        dynamic_quantization_group_size=int(parameters["dynamic_quantization_group_size"]),
        limits=EngineLimits(
            max_seq_len=int(parameters["max_seq_len"]),
            vocab_size=model["vocab_size"],
            exclude_input_in_output=parameters["exclude_input_in_output"] == "true",
        ),
    )


def open_pipeline(settings: EngineSettings) -> genai.ContinuousBatchingPipeline:
    """Compile the engine for this CPU and allocate its KV cache."""
    scheduler = genai.SchedulerConfig()
    scheduler.max_num_seqs = settings.max_batch_size
    scheduler.max_num_batched_tokens = settings.max_num_tokens
    scheduler.num_kv_blocks = settings.num_kv_blocks
    scheduler.enable_prefix_caching = True
    properties = {**DEVICE_PROPERTIES, "DYNAMIC_QUANTIZATION_GROUP_SIZE": settings.dynamic_quantization_group_size}
    tokenizer = genai.Tokenizer(settings.engine_dir / "tokenizer")
    return genai.ContinuousBatchingPipeline(settings.engine_dir, tokenizer, scheduler, "CPU", **properties)


def _read_manifest(engine_dir: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((engine_dir / "manifest.json").read_bytes())
    except OSError:
        raise MissingEngine(
            f"{engine_dir}: no engine; build it with: python -m build_engine build --target openvino CHECKPOINT"
        ) from None
    return manifest
