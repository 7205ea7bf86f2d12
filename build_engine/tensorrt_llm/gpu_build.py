"""What a GPU build makes, from what and with what: the value that its steps share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from build_engine.checkpoint import Checkpoint
from build_engine.hashes import Hashes
from build_engine.manifest import make_manifest
from build_engine.model_config import Limits, ServingConfig
from build_engine.publish import ENGINE

from .commands import VERSION, Toolchain

CONVERT, VERIFY, BUILD = "convert", "verify", "build"
"""The steps that are kept, by the names of their directories and logs in `work_dir`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuBuild:
    """An engine of `checkpoint` for the limits in `config`, split among `tp_size` GPUs.

    `work_dir` is where the steps write until the engine is published.
    """

    checkpoint: Checkpoint
    model_dir: Path
    config: ServingConfig
    tp_size: int
    tools: Toolchain
    work_dir: Path

    @property
    def engine_dir(self) -> Path:
        """Where the engine is published."""
        return self.model_dir / ENGINE

    @property
    def engine_files(self) -> tuple[str, ...]:
        """What NVIDIA's builder writes; no byte of it depends on the tokenizer."""
        return ("config.json", *(f"rank{rank}.engine" for rank in range(self.tp_size)))

    @property
    def limits(self) -> Limits:
        """What the engine is built for."""
        return self.config.limits

    @property
    def convert_inputs(self) -> dict[str, Any]:
        """Everything that the converted checkpoint depends on."""
        return {
            "checkpoint": self.checkpoint.engine_state(),
            "tensor_parallel_size": self.tp_size,
            "tensorrt_llm": VERSION,
        }

    def build_inputs(self, sm: int) -> dict[str, Any]:
        """Everything that the engine depends on; `sm` is the architecture of the GPUs."""
        return {**self.convert_inputs, "sm": sm, "limits": self.limits.to_json()}

    def manifest(self, sm: int, hashes: Hashes) -> dict[str, Any]:
        """The manifest of the engine for GPUs of architecture `sm`.

        Raises CheckpointError when the checkpoint was changed since it was opened.
        """
        versions = {"tensorrt_llm": VERSION}
        manifest = make_manifest("tensorrt_llm", self.checkpoint, hashes, self.limits, versions)
        return {**manifest, "tensor_parallel_size": self.tp_size, "sm": sm}
