"""Build the CPU engine: AWQ tensors to an OpenVINO model that GenAI's continuous batching runs."""

from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from build_engine.chat_template import check_chat_template
from build_engine.checkpoint import Checkpoint
from build_engine.disk import check_room
from build_engine.hashes import Hashes, remembered_hashes
from build_engine.manifest import has_same_engine, kept_fields, make_manifest
from build_engine.mixtral import PACKED, MixtralConfig, engine_bytes, expected_tensors
from build_engine.model_config import Limits, check_context, read_serving_config
from build_engine.progress import progress, working
from build_engine.publish import (
    ENGINE,
    Outcome,
    find_published,
    link_or_copy,
    only_engine_build,
    staged_engine,
)

from .graph import GRAPH_VERSION
from .tokenizer import write_tokenizer
from .weights import write_ir

PACKAGES = ("openvino", "openvino-genai", "openvino-tokenizers")
"""Packages whose versions go into the manifest, beside the graph's: with another version, the engine is built again."""

_GUIDE_CHECKER = "guide_checker"
_ENGINE_FILES = tuple(
    f"{directory}openvino_model.{end}" for directory in ("", f"{_GUIDE_CHECKER}/") for end in ("xml", "bin")
)
"""What does not depend on the tokenizer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuBuild:
    """An engine of `checkpoint` for `limits`, to be published in the Triton model `model_dir`."""

    checkpoint: Checkpoint
    model_dir: Path
    limits: Limits

    @property
    def engine_dir(self) -> Path:
        """Where the engine is published."""
        return self.model_dir / ENGINE

    def manifest(self, hashes: Hashes) -> dict[str, Any]:
        """The manifest of the engine. Raises CheckpointError when the checkpoint was changed since it was opened."""
        versions = {package: version(package) for package in PACKAGES} | {"graph": GRAPH_VERSION}
        return make_manifest("openvino", self.checkpoint, hashes, self.limits, versions)


def open_build(checkpoint: Checkpoint, model_dir: Path) -> CpuBuild:
    """The build of `checkpoint` into `model_dir`, a Triton model with its config.pbtxt.

    Raises RepositoryError for limits that cannot be read or do not suit the model.
    """
    config = read_serving_config(model_dir / "config.pbtxt")
    check_context(config, checkpoint)
    return CpuBuild(checkpoint=checkpoint, model_dir=model_dir, limits=config.limits)


def run_build(build: CpuBuild) -> Outcome:
    """Build and publish the engine, unless this very engine is in place already.

    Raises BuildError; then nothing was published.
    """
    with only_engine_build(build.engine_dir), remembered_hashes(build.engine_dir) as hashes:
        manifest = build.manifest(hashes)
        if found := find_published(build.engine_dir, manifest, hashes):
            return found
        with working("chat template"):
            check_chat_template(build.checkpoint.path, build.checkpoint.given_template)
        is_same = has_same_engine(build.engine_dir, manifest, _ENGINE_FILES, hashes)
        if not is_same:
            check_room(build.engine_dir, engine_bytes(build.checkpoint.config))
        whole = {**manifest, **kept_fields(build.engine_dir)} if is_same else manifest
        with staged_engine(build.engine_dir, build.checkpoint, whole, hashes) as stage:
            if is_same:
                for name in _ENGINE_FILES:
                    link_or_copy(build.engine_dir / name, stage / name)
            else:
                _write_engine(build.checkpoint, stage)
            # Apart from tokenizer_config.json: GenAI would read that too, and fails where a token in it is an object.
            with working("tokenizer"):
                write_tokenizer(build.checkpoint, stage / "tokenizer")
    return Outcome.REFRESHED if is_same else Outcome.BUILT


def _write_engine(checkpoint: Checkpoint, directory: Path) -> None:
    with progress("weights", engine_bytes(checkpoint.config), "B") as advance:
        write_ir(checkpoint, directory, advance)
    with working("guide checker"):
        _write_guide_checker(checkpoint.config, directory / _GUIDE_CHECKER)


@dataclass(frozen=True)
class _Zeros:
    """Weights of a model of which only the vocabulary matters."""

    config: MixtralConfig

    def tensor(self, name: str) -> NDArray[Any]:
        spec = expected_tensors(self.config)[name]
        return np.zeros(spec.shape, np.int32 if spec.dtypes == PACKED else np.float16)


def _write_guide_checker(config: MixtralConfig, directory: Path) -> None:
    """Write a model of one tiny layer, on which the Triton model compiles each guide before it reaches the batch."""
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
