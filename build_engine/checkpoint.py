"""Open an AutoAWQ Mixtral checkpoint as Hugging Face ships it, and read its tensors one at a time.

An error names the file or tensor that cannot be served. Only the tensor asked for is loaded.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  registers bfloat16 with numpy, which safetensors needs to read BF16 tensors
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from .chat_template import TEMPLATE, TOKENIZER_CONFIG, find_chat_template
from .checkpoint_files import changed, content_of, read_json_object, read_small, refuse_pointer, state_of, unreadable
from .end_tokens import EndTokens, read_end_tokens
from .errors import CheckpointError
from .hashes import Hashes
from .hub_cache import snapshot_of
from .mixtral import PACKED, MixtralConfig, TensorSpec, each_tensor, expected_tensors, to_mixtral_config
from .regular_file import MIB, FileState, open_regular

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE_SHARD = "model.safetensors"
TOKENIZER = "tokenizer.json"
REQUIRED_TOKENIZER_FILES = (TOKENIZER, TOKENIZER_CONFIG)
"""Files that the frontend and Triton need beside the engine."""
OPTIONAL_TOKENIZER_FILES = ("special_tokens_map.json", "generation_config.json", TEMPLATE)
"""Files that are published with the engine if the checkpoint has them."""
TEXT_FILES = frozenset({*REQUIRED_TOKENIZER_FILES, *OPTIONAL_TOKENIZER_FILES})
"""Files that say how text and token ids become each other. No weight and no size of the engine depends on them."""
_TOKENIZER_BYTES = 64 * MIB
"""The largest tokenizer.json. Gemma's has 33 MiB for 256,000 tokens; loading takes up to ten times as much memory."""
_HEADER_BYTES = 16 * MIB
"""The largest header of a shard. All tensors of Mixtral 8x22B take 0.7 MiB; the library would take 100 MB."""
_LENGTH_BYTES = 8
_OPEN_SHARDS = 2
"""Tensors are read layer by layer, as they lie in the shards; a layer may begin in one and end in the next."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checked AutoAWQ Mixtral on disk. `shards` maps each tensor to its file, by name.

    `files` has the state of every file when it was opened, by name. `given_template` is the file that takes the place
    of its chat_template.jinja. `given_path` is what it was opened by, where that is a repository of snapshots.
    """

    path: Path
    config: MixtralConfig
    shards: Mapping[str, str]
    end_tokens: EndTokens
    files: Mapping[str, FileState]
    given_template: Path | None = None
    given_path: Path | None = None

    @property
    def name(self) -> str:
        """The path that it was opened by: the name under which clients know the model by default."""
        return str(self.given_path or self.path)

    def file(self, name: str) -> Path:
        """Where one of `files` is."""
        return self.path / name if name != TEMPLATE or self.given_template is None else self.given_template

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
    def text_files(self) -> dict[str, Path]:
        """The files to publish with the engine, those that exist, by name."""
        return {name: self.file(name) for name in sorted(TEXT_FILES & self.files.keys())}

    @property
    def size_bytes(self) -> int:
        """Bytes of all weight files."""
        return sum(self.files[shard].size for shard in set(self.shards.values()))

    def engine_state(self) -> str:
        """A hash of the states of all files but TEXT_FILES. Reads nothing.

        As long as it is the same, nothing was written to any of them.
        """
        states = sorted((name, state) for name, state in self.files.items() if name not in TEXT_FILES)
        return f"sha256:{hashlib.sha256(repr(states).encode()).hexdigest()}"

    def contents(self, hashes: Hashes) -> dict[str, str]:
        """The SHA-256 of every file by name.

        Raises CheckpointError for a file that was written since it was opened, and for a damaged one in Hugging Face's
        cache.
        """
        contents = {name: content_of(self.file(name), hashes) for name in sorted(self.files)}
        for name, opened in self.files.items():
            if state_of(self.file(name)).written_since(opened):
                raise changed(name)
        return contents

    def check_unchanged(self, contents: Mapping[str, str], hashes: Hashes) -> None:
        """Raises CheckpointError for a file that was written since it was opened, or has other contents by now."""
        for name, found in self.contents(hashes).items():
            if found != contents[name]:
                raise changed(name)


def open_checkpoint(path: Path, given_template: Path | None = None) -> Checkpoint:
    """Open a checkpoint, and check everything that can be checked without reading weights.

    `path` is a directory of files, or a repository in Hugging Face's cache. The file `given_template` takes the place
    of its chat template. Raises CheckpointError: no such directory, unreadable config, not a 4-bit AutoAWQ gemm
    Mixtral, missing or broken tokenizer, no chat template, missing, damaged or incomplete shard, tensor missing,
    unknown, or of another dtype or shape.
    """
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such directory; accepted: a Hugging Face checkpoint directory")
    given_path, path = path, snapshot_of(path)
    files = {CONFIG: state_of(path / CONFIG)}  # each before it is read: a change from then on is found
    config = to_mixtral_config(read_json_object(path / CONFIG))
    files |= {name: state_of(path / name) for name in _other_small_files(path)}
    if given_template is not None:
        files[TEMPLATE] = state_of(given_template)
    find_chat_template(path, given_template)
    end_tokens = read_end_tokens(path, _open_tokenizer(path / TOKENIZER), config.vocab_size)
    shards = _find_shards(path)
    files |= {shard: state_of(path / shard) for shard in sorted(set(shards.values()))}
    _check_tensors(path, shards, config)
    return Checkpoint(path, config, shards, end_tokens, files, given_template, given_path)


def read_config(path: Path) -> MixtralConfig:
    """The checked sizes from a checkpoint as of `open_checkpoint`, or from its config.json. Raises CheckpointError."""
    return to_mixtral_config(read_json_object(snapshot_of(path) / CONFIG if path.is_dir() else path))


def _other_small_files(path: Path) -> list[str]:
    """Names of the files beside config.json and the weights: those that must exist, and of the others those that do."""
    optional = [name for name in (*OPTIONAL_TOKENIZER_FILES, INDEX) if os.path.lexists(path / name)]
    return [*REQUIRED_TOKENIZER_FILES, *optional]


def _open_tokenizer(file: Path) -> Tokenizer:
    content = read_small(file, _TOKENIZER_BYTES)
    try:
        return Tokenizer.from_str(content.decode())
    except Exception as error:  # tokenizers raises nothing narrower
        raise CheckpointError(f"{file.name}: does not load ({error}); accepted: a fast tokenizer") from error


def _find_shards(path: Path) -> dict[str, str]:
    """Tensor name to file name, from the index or from the only shard."""
    if os.path.lexists(path / SINGLE_SHARD):  # even if there is an index, as in transformers
        return dict.fromkeys(_headers(path / SINGLE_SHARD), SINGLE_SHARD)
    if not os.path.lexists(path / INDEX):
        raise CheckpointError(f"{path}: no {SINGLE_SHARD} and no {INDEX}; accepted: safetensors weights")
    weight_map = read_json_object(path / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError(f"{INDEX}: no usable weight_map; accepted: an object from tensor names to shard files")
    for shard in sorted(set(weight_map.values())):
        if Path(shard).name != shard:
            raise CheckpointError(f"{INDEX}: names shard {shard!r:.200}; accepted: a file beside the index")
        if not os.path.lexists(path / shard) or (path / shard).is_dir():
            raise CheckpointError(
                f"{INDEX}: names shard {shard!r:.200}, which is absent; accepted: a file beside the index"
            )
    return weight_map


def _headers(shard: Path) -> dict[str, TensorSpec]:
    """The tensors in a shard's header. Opening the shard also checks that it is not truncated."""
    with _opened(shard) as tensors:
        return {name: spec_of(tensors.get_slice(name)) for name in tensors.keys()}  # noqa: SIM118  not a mapping


@contextmanager
def _opened(shard: Path) -> Iterator[Any]:
    try:
        yield _shard(shard, state_of(shard))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{shard.name}: truncated or of another format ({error}); accepted: a safetensors file"
        ) from error


@lru_cache(_OPEN_SHARDS)
def _shard(shard: Path, _: FileState) -> Any:
    """Stays open for the next tensor: its header, of up to a thousand tensors, is checked once in each state."""
    _check_header(shard)
    return safe_open(shard, framework="numpy")


def _check_header(shard: Path) -> None:
    """The library checks everything else. A shard begins with the bytes of its header, as a little-endian u64."""
    try:
        with open_regular(shard) as file:
            length = file.read(_LENGTH_BYTES)
    except OSError as error:
        raise unreadable(shard, error) from error
    refuse_pointer(shard, length)
    found = int.from_bytes(length, "little")
    if len(length) == _LENGTH_BYTES and found > _HEADER_BYTES:
        raise CheckpointError(
            f"{shard.name}: truncated or of another format (its header would have {found} bytes, of at most"
            f" {_HEADER_BYTES}); accepted: a safetensors file"
        )


def spec_of(tensor: Any) -> TensorSpec:
    """Dtype and shape of a tensor in an open safetensors file, from its slice."""
    return TensorSpec((tensor.get_dtype(),), tuple(tensor.get_shape()))


def _check_tensors(path: Path, shards: Mapping[str, str], config: MixtralConfig) -> None:
    held = {shard: _headers(path / shard) for shard in sorted(set(shards.values()))}
    expected = set()
    for name, spec in each_tensor(
        config
    ):  # one at a time: as many as the config says, of which the first may be missing
        if name not in shards:
            raise CheckpointError(f"tensor {name}: missing from the weights; accepted: {spec}")
        found = held[shards[name]].get(name)
        if found is None:
            raise CheckpointError(
                f"{shards[name]}: tensor {name} is not in it, though {INDEX} says so; accepted: {spec}"
            )
        if found.dtypes[0] not in spec.dtypes or found.shape != spec.shape:
            raise CheckpointError(f"{shards[name]}: tensor {name} is {found!s:.200}; accepted: {spec}")
        expected.add(name)
    for shard, name in ((shard, name) for shard, tensors in held.items() for name in tensors):
        if name not in expected and not _is_redundant(name):
            raise CheckpointError(
                f"{shard}: tensor {name:.200} is unknown; accepted: those of a Mixtral in AutoAWQ gemm layout"
            )


def _is_redundant(name: str) -> bool:
    """Rotary tables follow from the config, and a tied head may still be stored. No other tensor can be ignored."""
    return name.endswith(".rotary_emb.inv_freq") or name == "lm_head.weight"
