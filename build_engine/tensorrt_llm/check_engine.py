"""Read back what `trtllm-build` wrote, and check that it is the engine that was asked for."""

import json
from pathlib import Path

from build_engine.errors import EngineError
from build_engine.mixtral import MixtralConfig
from build_engine.model_config import Limits

from .commands import VERSION
from .plan import TOKENS_PER_BLOCK
from .trtllm_checkpoint import lookup

CONFIG = "config.json"


def check_engine(directory: Path, config: MixtralConfig, limits: Limits, tp_size: int) -> None:
    """Raises EngineError for another limit, version, split or setting than asked for, or a rank without an engine."""
    try:
        fields = json.loads((directory / CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise EngineError(f"engine {CONFIG}: cannot be read ({error})") from error
    for path, accepted in expected_engine(config, limits, tp_size).items():
        if (found := lookup(fields, path)) != accepted:
            raise EngineError(f"engine {CONFIG}: {path} is {found!r}; accepted: {accepted!r}")
    cache_type = str(lookup(fields, "build_config.kv_cache_type")).rpartition(".")[2].lower()
    if cache_type != "paged":
        raise EngineError(f"engine {CONFIG}: build_config.kv_cache_type is {cache_type}; accepted: paged")
    for rank in range(tp_size):
        file = directory / f"rank{rank}.engine"
        if not file.is_file() or not file.stat().st_size:
            raise EngineError(f"{file.name}: missing or empty; accepted: one engine for each of {tp_size} ranks")


def expected_engine(config: MixtralConfig, limits: Limits, tp_size: int) -> dict[str, object]:
    """Field paths and values of the engine's config.json. Source: `EngineConfig` in builder.py of TensorRT-LLM 1.2."""
    return {
        "version": VERSION,
        "pretrained_config.architecture": "MixtralForCausalLM",
        "pretrained_config.dtype": "float16",
        "pretrained_config.vocab_size": config.vocab_size,
        "pretrained_config.num_hidden_layers": config.num_hidden_layers,
        "pretrained_config.quantization.quant_algo": "W4A16_GPTQ",
        "pretrained_config.quantization.has_zero_point": True,
        "pretrained_config.mapping.world_size": tp_size,
        "pretrained_config.mapping.tp_size": tp_size,
        "build_config.max_batch_size": limits.max_batch_size,
        "build_config.max_num_tokens": limits.max_num_tokens,
        "build_config.max_seq_len": limits.max_seq_len,
        "build_config.max_beam_width": 1,
        # The builder switches it off by itself for some combinations; then KV reuse and chunked context are gone.
        "build_config.plugin_config.use_paged_context_fmha": True,
        "build_config.plugin_config.remove_input_padding": True,
        "build_config.plugin_config.tokens_per_block": TOKENS_PER_BLOCK,
    }
