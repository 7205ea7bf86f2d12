"""Build the CPU engine: AWQ tensors to an OpenVINO model that GenAI's continuous batching takes as it is."""

from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from build_engine.checkpoint import Checkpoint
from build_engine.mixtral import PACKED, MixtralConfig, engine_bytes, expected_tensors
from build_engine.model_config import check_context, read_serving_config
from build_engine.progress import progress
from build_engine.publish import is_published, make_manifest, only_build, staged

from .tokenizer import write_tokenizer
from .weights import write_ir

PACKAGES = ("openvino", "openvino-genai", "openvino-tokenizers")


def build(checkpoint: Checkpoint, model_dir: Path) -> bool:
    """Publish `model_dir`/1/engine, `model_dir` being a Triton model with its config.pbtxt.

    Returns False when this very engine is in place already. Raises BuildError; then nothing was published.
    """
    engine_dir = model_dir / "1" / "engine"
    config = read_serving_config(model_dir / "config.pbtxt")
    check_context(config, checkpoint)
    manifest = make_manifest("openvino", checkpoint, config.limits, {package: version(package) for package in PACKAGES})
    with only_build(engine_dir):
        if is_published(engine_dir, manifest):
            return False
        with staged(engine_dir, checkpoint, manifest) as stage:
            _write_engine(checkpoint, stage)
    return True


def _write_engine(checkpoint: Checkpoint, directory: Path) -> None:
    with progress("weights", engine_bytes(checkpoint.config), "B") as advance:
        write_ir(checkpoint, directory, advance)
    _write_guide_checker(checkpoint.config, directory / "guide_checker")
    write_tokenizer(checkpoint, directory)


@dataclass(frozen=True)
class _Zeros:
    """Weights of a model that only has to have the right vocabulary."""

    config: MixtralConfig

    def tensor(self, name: str) -> NDArray[Any]:
        spec = expected_tensors(self.config)[name]
        return np.zeros(spec.shape, np.int32 if spec.dtypes == PACKED else np.float16)


def _write_guide_checker(config: MixtralConfig, directory: Path) -> None:
    """One tiny layer on which the Triton model tries a guide before the batch sees it."""
    directory.mkdir()
    size = config.group_size
    tiny = replace(
        config,
        hidden_size=size,
        intermediate_size=size,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=size,
        num_local_experts=2,
        num_experts_per_tok=1,
        tie_word_embeddings=True,
    )
    write_ir(_Zeros(tiny), directory, lambda _: None)
