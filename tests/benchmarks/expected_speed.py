"""What `make plan` expects of a published GPU engine under the load of `make perf`. Standard library only."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from build_engine.mixtral import MixtralConfig
from build_engine.tensorrt_llm.gpus import GPUS
from build_engine.tensorrt_llm.speed import Speed, speed


@dataclass(frozen=True)
class Load:
    """Streams at the same time, each with prompts and answers of these lengths in tokens."""

    streams: int
    prompt_tokens: int
    answer_tokens: int


def expected_speed(engine_dir: Path, gpu: str, load: Load) -> Speed:
    """In tokens of answers per second. Streams beyond the engine's max_batch_size wait."""
    model = json.loads((engine_dir / "config.json").read_bytes())["pretrained_config"]
    most = json.loads((engine_dir / "manifest.json").read_bytes())["limits"]["max_batch_size"]
    return speed(
        mixtral_of_engine(model),
        GPUS[gpu],
        model["mapping"]["tp_size"],
        min(load.streams, most),
        context=load.prompt_tokens + load.answer_tokens // 2,
        prompt_tokens=load.prompt_tokens / load.answer_tokens,
    )


def gpu_problem(engine_dir: Path, gpu: str) -> str | None:
    """Why there is no expectation: the engine was built on another architecture than that of `gpu`."""
    sm = json.loads((engine_dir / "manifest.json").read_bytes())["sm"]
    if GPUS[gpu].sm == sm:
        return None
    accepted = ", ".join(name for name, known in GPUS.items() if known.sm == sm)
    return f"no expected speed: the engine is for SM {sm}, GPU={gpu} is SM {GPUS[gpu].sm}; accepted: {accepted}"


def mixtral_of_engine(model: dict[str, Any]) -> MixtralConfig:
    """The model's sizes from `pretrained_config` in the engine's config.json."""
    return MixtralConfig(
        vocab_size=model["vocab_size"],
        hidden_size=model["hidden_size"],
        intermediate_size=model["intermediate_size"],
        num_hidden_layers=model["num_hidden_layers"],
        num_attention_heads=model["num_attention_heads"],
        num_key_value_heads=model["num_key_value_heads"],
        head_dim=model["head_size"],
        num_local_experts=model["moe"]["num_experts"],
        num_experts_per_tok=model["moe"]["top_k"],
        max_position_embeddings=model["max_position_embeddings"],
        sliding_window=None,
        rms_norm_eps=model["norm_epsilon"],
        rope_theta=model["rotary_base"],
        tie_word_embeddings=False,
        group_size=model["quantization"]["group_size"],
    )
