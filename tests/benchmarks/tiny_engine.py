"""An engine that is as fast as Triton allows, so that thousands of requests take minutes."""

import shutil
from pathlib import Path

from build_engine.__main__ import main as build_engine
from build_engine.model_repository import MODEL_REPOSITORY
from tests.mixtral_tokenizer import write_mixtral_tokenizer
from tests.tiny_mixtral import TINY, tiny_tensors, write_checkpoint

KV_CACHE_BYTES = 64 << 20
"""Soon full of what was answered: what grows after that is something else."""


def write_tiny_engine(directory: Path) -> Path:
    """Build the CPU engine of a tiny Mixtral below `directory`, with the limits of the product; the engine's place."""
    tokenizer, repository = directory / "tokenizer", directory / "model_repository"
    tokenizer.mkdir(parents=True)
    write_mixtral_tokenizer(tokenizer)
    checkpoint = write_checkpoint(directory / "mixtral", TINY, tiny_tensors(TINY), tokenizer)
    ignored = shutil.ignore_patterns("engine", "engines", ".engine.*", "__pycache__")
    shutil.copytree(MODEL_REPOSITORY / "openvino", repository / "openvino", ignore=ignored)
    assert build_engine(["build", "--model-repository", str(repository), str(checkpoint)]) == 0
    return repository / "openvino" / "1" / "engine"
