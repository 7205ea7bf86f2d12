"""The settings in config.pbtxt and the engine's manifest, and the pipeline for them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openvino_genai as genai
from generation import EngineLimits
from kv_room import KV_BLOCK_TOKENS, KvRoom
from precision import PRECISIONS, choose_precision, read_cpu_flags

KV_CACHE_PRECISION = "f16"
"""An 8-bit KV cache changes greedy answers, and was not faster."""


class MissingEngine(Exception):
    """Nothing was built yet; the message says how to build it."""


class InvalidSettings(Exception):
    """A parameter in config.pbtxt; the message says which, what was found, what is accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What the engine is started with."""

    engine_dir: Path
    kv_room: KvRoom
    max_num_tokens: int
    precision: str
    limits: EngineLimits


def read_settings(args: dict[str, str]) -> EngineSettings:
    """The settings, from the arguments of Triton's `initialize`. Raises MissingEngine and InvalidSettings.

    A request may have as many tokens as the context, or as the KV cache if that is smaller.
    """
    config = json.loads(args["model_config"])
    parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
    # What the link leads to: the scorer, which may start after another engine was published, is to open the same.
    engine_dir = Path(args["model_repository"], args["model_version"], "engine").resolve()
    model = _read_manifest(engine_dir)["model"]
    kv_room = KvRoom(
        num_blocks=_num_kv_blocks(int(parameters["kv_cache_bytes"]), model["kv_bytes_per_token"]),
        max_batch_size=config["max_batch_size"],
    )
    return EngineSettings(
        engine_dir=engine_dir,
        kv_room=kv_room,
        max_num_tokens=int(parameters["max_num_tokens"]),
        precision=_precision(parameters["precision"]),
        limits=EngineLimits(
            max_seq_len=min(int(parameters["max_seq_len"]), kv_room.num_tokens),
            vocab_size=model["vocab_size"],
            exclude_input_in_output=parameters["exclude_input_in_output"] == "true",
        ),
    )


def open_pipeline(settings: EngineSettings) -> genai.ContinuousBatchingPipeline:
    """Compile the engine for this CPU and allocate its KV cache."""
    scheduler = genai.SchedulerConfig()
    scheduler.max_num_seqs = settings.kv_room.max_batch_size
    scheduler.max_num_batched_tokens = settings.max_num_tokens
    scheduler.num_kv_blocks = settings.kv_room.num_blocks
    scheduler.enable_prefix_caching = True
    properties = {**PRECISIONS[settings.precision], "KV_CACHE_PRECISION": KV_CACHE_PRECISION}
    tokenizer = genai.Tokenizer(settings.engine_dir / "tokenizer")
    return genai.ContinuousBatchingPipeline(settings.engine_dir, tokenizer, scheduler, "CPU", **properties)


def _precision(name: str) -> str:
    try:
        return choose_precision(name, read_cpu_flags())
    except ValueError as error:
        raise InvalidSettings(str(error)) from None


def _num_kv_blocks(kv_cache_bytes: int, bytes_per_token: int) -> int:
    """With 0 blocks GenAI would let the cache grow without a bound."""
    bytes_per_block = KV_BLOCK_TOKENS * bytes_per_token
    if kv_cache_bytes < bytes_per_block:
        raise InvalidSettings(f"kv_cache_bytes is {kv_cache_bytes}; accepted: {bytes_per_block} and more")
    return kv_cache_bytes // bytes_per_block


def _read_manifest(engine_dir: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((engine_dir / "manifest.json").read_bytes())
    except OSError:
        raise MissingEngine(
            f"{engine_dir}: no engine; build it with: python -m build_engine build --target openvino CHECKPOINT"
        ) from None
    return manifest
