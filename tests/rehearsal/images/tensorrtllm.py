"""Stands for the `tensorrtllm` backend: checks what that reads, and answers with a CPU engine of the checkpoint."""

import json
import os
from pathlib import Path
from typing import Any

import openvino_model  # type: ignore[import-not-found]  # the CPU model's model.py

CPU_PARAMETERS = {"kv_cache_bytes": "67108864", "precision": "f32"}
"""What the CPU engine needs besides the parameters of TensorRT-LLM. Float32, so that answers can be compared."""


class TritonPythonModel(openvino_model.TritonPythonModel):  # type: ignore[misc]
    """Loaded in place of a model whose config.pbtxt has `backend: "tensorrtllm"`."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        check({key: value["string_value"] for key, value in config["parameters"].items()})
        config["parameters"] |= {key: {"string_value": value} for key, value in CPU_PARAMETERS.items()}
        super().initialize(args | {"model_config": json.dumps(config)})


def check(parameters: dict[str, str]) -> None:
    """Fail as TensorRT-LLM does: without the engine of each rank, or with another number of ranks."""
    engine_dir = Path(parameters["gpt_model_path"])
    engine: dict[str, Any] = json.loads((engine_dir / "config.json").read_text())
    world_size = int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1"))
    assert engine["pretrained_config"]["mapping"]["world_size"] == world_size, "one process for each rank"
    assert all((engine_dir / f"rank{rank}.engine").stat().st_size for rank in range(world_size))
    info = json.loads(Path(parameters["xgrammar_tokenizer_info_path"]).read_text())
    assert info.keys() == {"encoded_vocab", "tokenizer_str", "stop_token_ids"}
