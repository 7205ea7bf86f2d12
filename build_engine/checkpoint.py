"""Open an AutoAWQ Mixtral checkpoint as Hugging Face ships it, and read its tensors one at a time.

Refuses, naming the file or tensor, whatever could not be served correctly; never loads more than the tensor asked for.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  registers bfloat16 with numpy, as which safetensors then reads BF16 tensors
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from .errors import CheckpointError
from .mixtral import MixtralConfig, TensorSpec, expected_tensors, to_mixtral_config

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE_SHARD = "model.safetensors"
# What the frontend and Triton need beside the engine: the first two must exist, the others are taken along.
REQUIRED_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
OPTIONAL_TOKENIZER_FILES = ("special_tokens_map.json", "generation_config.json", "chat_template.jinja")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checked AutoAWQ Mixtral on disk. `shards` maps each tensor to its file, by name."""

    path: Path
    config: MixtralConfig
    shards: Mapping[str, str]

    def tensor(self, name: str) -> NDArray[Any]:
        """One tensor as stored. Raises CheckpointError for a value that is not finite."""
        with safe_open(self.path / self.shards[name], framework="numpy") as shard:
            values: NDArray[Any] = shard.get_tensor(name)
        if values.dtype.kind != "i" and not np.isfinite(values.astype(np.float32, copy=False)).all():
            raise CheckpointError(f"{self.shards[name]}: tensor {name} holds NaN or infinity; accepted: finite numbers")
        return values

    @property
    def tokenizer_files(self) -> list[Path]:
        """Files that travel with the engine, those that exist."""
        names = (*REQUIRED_TOKENIZER_FILES, *OPTIONAL_TOKENIZER_FILES)
        return [self.path / name for name in names if (self.path / name).is_file()]

    @property
    def size_bytes(self) -> int:
        """Bytes of all weight files."""
        return sum((self.path / shard).stat().st_size for shard in set(self.shards.values()))

    def fingerprint(self) -> str:
        """Changes when the checkpoint does: contents of the small files, size and time of the shards.

        Hashing 24 GB of weights would take longer than noticing that nothing changed is worth.
        """
        digest = hashlib.sha256()
        for file in (self.path / CONFIG, *self.tokenizer_files):
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
        for shard in sorted(set(self.shards.values())):
            stat = (self.path / shard).stat()
            digest.update(f"{shard}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
        return f"sha256:{digest.hexdigest()}"


def open_checkpoint(path: Path) -> Checkpoint:
    """Open and check everything that can be checked without reading weights.

    Raises CheckpointError: no such directory, unreadable config, not a 4-bit AutoAWQ gemm Mixtral, missing tokenizer,
    missing, damaged or incomplete shard, tensor missing or of another dtype or shape.
    """
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such directory; accepted: a Hugging Face checkpoint directory")
    config = to_mixtral_config(_read_json(path / CONFIG))
    for name in REQUIRED_TOKENIZER_FILES:
        _read_json(path / name)
    shards = _find_shards(path)
    _check_tensors(path, shards, expected_tensors(config))
    return Checkpoint(path, config, shards)


def read_config(path: Path) -> MixtralConfig:
    """The checked sizes from a checkpoint directory, or from its config.json alone. Raises CheckpointError."""
    return to_mixtral_config(_read_json(path / CONFIG if path.is_dir() else path))


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{file.name}: missing in {file.parent}") from None
    except OSError as error:
        raise CheckpointError(f"{file.name}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise CheckpointError(f"{file.name}: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file.name}: holds a {type(value).__name__}; accepted: a JSON object")
    return value


def _find_shards(path: Path) -> dict[str, str]:
    """Tensor name to file name, from the index or from the only shard."""
    if not (path / INDEX).exists():
        if not (path / SINGLE_SHARD).exists():
            raise CheckpointError(f"{path}: no {SINGLE_SHARD} and no {INDEX}; accepted: safetensors weights")
        return {name: SINGLE_SHARD for name in _headers(path / SINGLE_SHARD)}
    weight_map = _read_json(path / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError(f"{INDEX}: no weight_map; accepted: an object from tensor names to shard files")
    for shard in sorted(set(weight_map.values())):
        if Path(shard).name != shard:
            raise CheckpointError(f"{INDEX}: names shard {shard!r}; accepted: a file name in the same directory")
        if not (path / shard).is_file():
            raise CheckpointError(f"{INDEX}: names shard {shard}, which is absent from {path}")
    return weight_map


def _headers(shard: Path) -> dict[str, TensorSpec]:
    """What a shard's header says it holds; opening it also proves that the file is whole."""
    try:
        with safe_open(shard, framework="numpy") as tensors:
            return {name: _spec(tensors.get_slice(name)) for name in tensors.keys()}  # noqa: SIM118  not a mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{shard.name}: truncated or not a safetensors file ({error})") from error


def _spec(tensor: Any) -> TensorSpec:
    return TensorSpec((tensor.get_dtype(),), tuple(tensor.get_shape()))


def _check_tensors(path: Path, shards: Mapping[str, str], expected: Mapping[str, TensorSpec]) -> None:
    held = {shard: _headers(path / shard) for shard in sorted(set(shards.values()))}
    for name, spec in expected.items():
        if name not in shards:
            raise CheckpointError(f"tensor {name}: missing; accepted: {_describe(spec)}")
        found = held[shards[name]].get(name)
        if found is None:
            raise CheckpointError(f"{shards[name]}: tensor {name} is missing, though {INDEX} places it there")
        if found.dtypes[0] not in spec.dtypes or found.shape != spec.shape:
            raise CheckpointError(f"{shards[name]}: tensor {name} is {_describe(found)}; accepted: {_describe(spec)}")
    for name in _unexpected(shards, expected):
        raise CheckpointError(f"{shards[name]}: tensor {name} is no part of a Mixtral in AutoAWQ gemm layout")


def _unexpected(shards: Mapping[str, str], expected: Mapping[str, TensorSpec]) -> Iterator[str]:
    """Tensors whose effect would be lost. Rotary tables are derived, and a tied head may be stored all the same."""
    for name in shards:
        if name not in expected and not name.endswith(".rotary_emb.inv_freq") and name != "lm_head.weight":
            yield name


def _describe(spec: TensorSpec) -> str:
    return f"{' or '.join(spec.dtypes)} {list(spec.shape)}"
