"""Open an AutoAWQ Mixtral checkpoint as Hugging Face ships it, and read its tensors one at a time.

An error names the file or tensor that cannot be served. Only the tensor asked for is loaded.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  registers bfloat16 with numpy, which safetensors needs to read BF16 tensors
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from .end_tokens import EndTokens, read_end_tokens
from .errors import CheckpointError
from .mixtral import PACKED, MixtralConfig, TensorSpec, expected_tensors, to_mixtral_config

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE_SHARD = "model.safetensors"
TOKENIZER = "tokenizer.json"
REQUIRED_TOKENIZER_FILES = (TOKENIZER, "tokenizer_config.json")
"""Files that the frontend and Triton need beside the engine."""
OPTIONAL_TOKENIZER_FILES = ("special_tokens_map.json", "generation_config.json", "chat_template.jinja")
"""Files that are published with the engine if the checkpoint has them."""
_JSON = "a JSON object"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checked AutoAWQ Mixtral on disk. `shards` maps each tensor to its file, by name."""

    path: Path
    config: MixtralConfig
    shards: Mapping[str, str]
    end_tokens: EndTokens

    def tensor(self, name: str) -> NDArray[Any]:
        """One tensor: packed int32 as stored, any other as float16.

        Raises CheckpointError for a value that is not finite or that float16 cannot hold.
        """
        values = self.stored_tensor(name)
        if values.dtype in (np.int32, np.float16):
            return values
        with np.errstate(over="ignore"):  # an overflow becomes infinity, which is checked next
            halves = values.astype(np.float16)
        if not np.isfinite(halves).all():
            raise CheckpointError(
                f"{self.shards[name]}: tensor {name} exceeds float16; accepted: magnitudes up to 65504"
            )
        return halves

    def stored_tensor(self, name: str) -> NDArray[Any]:
        """One tensor in the dtype of its file. Raises CheckpointError for a value that is not finite."""
        shard = self.shards[name]
        with _opened(self.path / shard) as tensors:
            values: NDArray[Any] = tensors.get_tensor(name)
        if values.dtype != np.int32 and not np.isfinite(values).all():
            raise CheckpointError(f"{shard}: tensor {name} holds NaN or infinity; accepted: finite numbers")
        return values

    @property
    def float_tensors(self) -> list[str]:
        """Names of scales and plain weights. Unlike packed weights, their values can be invalid."""
        return [name for name, spec in expected_tensors(self.config).items() if spec.dtypes != PACKED]

    @property
    def tokenizer_files(self) -> list[Path]:
        """The files to publish with the engine, those that exist."""
        names = (*REQUIRED_TOKENIZER_FILES, *OPTIONAL_TOKENIZER_FILES)
        return [self.path / name for name in names if (self.path / name).is_file()]

    @property
    def size_bytes(self) -> int:
        """Bytes of all weight files."""
        return sum((self.path / shard).stat().st_size for shard in set(self.shards.values()))

    def fingerprint(self) -> str:
        """A hash that changes when the checkpoint does: of the small files' contents, and the shards' sizes and times.

        Every build computes it, so it does not read the 24 GB of weights.
        """
        digest = hashlib.sha256()
        for file in (self.path / CONFIG, *self.tokenizer_files):
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
        for shard in sorted(set(self.shards.values())):
            stat = (self.path / shard).stat()
            digest.update(f"{shard}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
        return f"sha256:{digest.hexdigest()}"


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a checkpoint, and check everything that can be checked without reading weights.

    Raises CheckpointError: no such directory, unreadable config, not a 4-bit AutoAWQ gemm Mixtral, missing or broken
    tokenizer, missing, damaged or incomplete shard, tensor missing, unknown, or of another dtype or shape.
    """
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such directory; accepted: a Hugging Face checkpoint directory")
    config = to_mixtral_config(_read_json(path / CONFIG))
    for name in REQUIRED_TOKENIZER_FILES:
        _read_json(path / name)
    end_tokens = read_end_tokens(path, _open_tokenizer(path / TOKENIZER), config.vocab_size)
    shards = _find_shards(path)
    _check_tensors(path, shards, expected_tensors(config))
    return Checkpoint(path, config, shards, end_tokens)


def read_config(path: Path) -> MixtralConfig:
    """The checked sizes from a checkpoint directory, or from its config.json alone. Raises CheckpointError."""
    return to_mixtral_config(_read_json(path / CONFIG if path.is_dir() else path))


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{file.name}: missing in {file.parent}; accepted: {_JSON}") from None
    except OSError as error:
        raise CheckpointError(f"{file.name}: cannot be read ({error.strerror}); accepted: {_JSON}") from error
    except ValueError as error:
        raise CheckpointError(f"{file.name}: does not parse ({error}); accepted: {_JSON}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file.name}: holds a {type(value).__name__}; accepted: {_JSON}")
    return value


def _open_tokenizer(file: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises nothing narrower
        raise CheckpointError(f"{file.name}: does not load ({error}); accepted: a fast tokenizer") from error


def _find_shards(path: Path) -> dict[str, str]:
    """Tensor name to file name, from the index or from the only shard."""
    if (path / SINGLE_SHARD).exists():  # even if there is an index, as in transformers
        return dict.fromkeys(_headers(path / SINGLE_SHARD), SINGLE_SHARD)
    if not (path / INDEX).exists():
        raise CheckpointError(f"{path}: no {SINGLE_SHARD} and no {INDEX}; accepted: safetensors weights")
    weight_map = _read_json(path / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError(f"{INDEX}: no usable weight_map; accepted: an object from tensor names to shard files")
    for shard in sorted(set(weight_map.values())):
        if Path(shard).name != shard:
            raise CheckpointError(f"{INDEX}: names shard {shard!r}; accepted: a file beside the index")
        if not (path / shard).is_file():
            raise CheckpointError(f"{INDEX}: names shard {shard!r}, which is absent; accepted: a file beside the index")
    return weight_map


def _headers(shard: Path) -> dict[str, TensorSpec]:
    """The tensors in a shard's header. Opening the shard also checks that it is not truncated."""
    with _opened(shard) as tensors:
        return {name: spec_of(tensors.get_slice(name)) for name in tensors.keys()}  # noqa: SIM118  not a mapping


@contextmanager
def _opened(shard: Path) -> Iterator[Any]:
    try:
        with safe_open(shard, framework="numpy") as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{shard.name}: truncated or of another format ({error}); accepted: a safetensors file"
        ) from error


def spec_of(tensor: Any) -> TensorSpec:
    """Dtype and shape of a tensor in an open safetensors file, from its slice."""
    return TensorSpec((tensor.get_dtype(),), tuple(tensor.get_shape()))


def _check_tensors(path: Path, shards: Mapping[str, str], expected: Mapping[str, TensorSpec]) -> None:
    held = {shard: _headers(path / shard) for shard in sorted(set(shards.values()))}
    for name, spec in expected.items():
        if name not in shards:
            raise CheckpointError(f"tensor {name}: missing from the weights; accepted: {spec}")
        found = held[shards[name]].get(name)
        if found is None:
            raise CheckpointError(
                f"{shards[name]}: tensor {name} is not in it, though {INDEX} says so; accepted: {spec}"
            )
        if found.dtypes[0] not in spec.dtypes or found.shape != spec.shape:
            raise CheckpointError(f"{shards[name]}: tensor {name} is {found}; accepted: {spec}")
    for shard, name in ((shard, name) for shard, tensors in held.items() for name in tensors):
        if name not in expected and not _is_redundant(name):
            raise CheckpointError(
                f"{shard}: tensor {name} is unknown; accepted: those of a Mixtral in AutoAWQ gemm layout"
            )


def _is_redundant(name: str) -> bool:
    """Rotary tables follow from the config, and a tied head may still be stored. No other tensor can be ignored."""
    return name.endswith(".rotary_emb.inv_freq") or name == "lm_head.weight"
