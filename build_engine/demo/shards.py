"""Write tensors as sharded safetensors with an index, as Hugging Face does."""

import errno
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file

from build_engine.checkpoint import INDEX

Tensor: TypeAlias = NDArray[Any]

SHARD_BYTES = 100_000_000


def write_shards(directory: Path, tensors: Iterable[tuple[str, Tensor]], shard_bytes: int = SHARD_BYTES) -> None:
    """Write files of at most `shard_bytes` (unless one tensor is larger), one in memory at a time, and the index.

    Raises OSError when they cannot be written.
    """
    shards: list[list[str]] = []
    pending: dict[str, Tensor] = {}
    total = size = 0
    for name, tensor in tensors:
        if pending and size + tensor.nbytes > shard_bytes:
            shards.append(_write_shard(directory, len(shards), pending))
            pending, size = {}, 0
        pending[name] = tensor
        size += tensor.nbytes
        total += tensor.nbytes
    shards.append(_write_shard(directory, len(shards), pending))
    index = {"metadata": {"total_size": total}, "weight_map": _name_shards(directory, shards)}
    (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_shard(directory: Path, number: int, tensors: dict[str, Tensor]) -> list[str]:
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    file = directory / f"{number}.shard"
    try:
        save_file(contiguous, file, metadata={"format": "pt"})
    except SafetensorError as error:  # of a full disk too
        raise OSError(errno.EIO, str(error), str(file)) from error
    return list(tensors)


def _name_shards(directory: Path, shards: list[list[str]]) -> dict[str, str]:
    """Rename the shards: a name contains their number, known only at the end. Returns tensor name -> file name."""
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards):
        file = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        (directory / f"{number}.shard").rename(directory / file)
        weight_map |= dict.fromkeys(names, file)
    return weight_map
