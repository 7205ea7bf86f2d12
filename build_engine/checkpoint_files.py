"""The files of a checkpoint: their JSON, their states, their hashes. Each CheckpointError names the file."""

import json
import re
from pathlib import Path
from typing import Any

from . import regular_file
from .errors import CheckpointError
from .hashes import Hashes
from .regular_file import MIB, FileState

_MAX_JSON_BYTES = 16 * MIB
"""The largest, the index of Mixtral 8x22B, has half a MiB."""
_MAX_DEPTH = 100
"""Objects and lists within each other. Real files have fewer than ten, and Python cannot print a thousand."""
_JSON = "a JSON object"
_POINTER = b"version "
"""Each pointer begins so (source: the specification of Git LFS). JSON does not, nor does a shard."""
_BLOB = re.compile(r"[0-9a-f]{64}")
"""The name of a large file in Hugging Face's cache: its SHA-256."""


def read_json_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file of at most 16 MiB.

    Only what all programs that read the file take in the same way: UTF-8 without a byte order mark, no name twice.
    """
    content = read_small(file, _MAX_JSON_BYTES)
    try:
        value = json.loads(content.decode(), parse_int=_integer, object_pairs_hook=_object)
        _check_depth(value)
        if b"\\u" in content:
            json.dumps(value, ensure_ascii=False).encode()  # raises for half of a surrogate pair, which is no text
    except RecursionError:
        raise CheckpointError(f"{file.name}: does not parse (nested too deeply); accepted: {_JSON}") from None
    except ValueError as error:
        raise CheckpointError(f"{file.name}: does not parse ({error}); accepted: {_JSON}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file.name}: holds a {type(value).__name__}; accepted: {_JSON}")
    return value


def read_small(file: Path, max_bytes: int) -> bytes:
    """The content of a regular file that must exist. Raises CheckpointError, also for a larger file."""
    try:
        content = regular_file.read_regular(file, max_bytes)
    except OSError as error:
        raise unreadable(file, error) from error
    refuse_pointer(file, content)
    return content


def refuse_pointer(file: Path, start: bytes) -> None:
    """Raises CheckpointError for a file that Git LFS has not downloaded; `start` are its first bytes, 8 or more."""
    if start.startswith(_POINTER):
        raise CheckpointError(
            f"{file.name}: a Git LFS pointer, not the file; accepted: {_accepted(file.name)};"
            f" run `git lfs pull` in {file.parent}"
        )


def state_of(file: Path) -> FileState:
    """The state of a regular file that must exist. Raises CheckpointError."""
    try:
        return regular_file.state_of(file)
    except OSError as error:
        raise unreadable(file, error) from error


def content_of(file: Path, hashes: Hashes) -> str:
    """The SHA-256 of a file. Raises CheckpointError, also for a damaged file in Hugging Face's cache."""
    try:
        found, blob = hashes.of(file), file.resolve().name
    except OSError as error:
        raise unreadable(file, error) from error
    if _BLOB.fullmatch(blob) and blob != found:
        raise CheckpointError(
            f"{file.name}: damaged, its SHA-256 is {found}; accepted: {blob}, its name in Hugging Face's cache;"
            " remove that file and download it again"
        )
    return found


def unreadable(file: Path, error: OSError) -> CheckpointError:
    """What to raise for a file that the system does not give."""
    found = (
        f"missing in {file.parent}" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
    )
    return CheckpointError(f"{file.name}: {found}; accepted: {_accepted(file.name)}{_remedy(file)}")


def changed(name: str) -> CheckpointError:
    """What to raise for a file that is another than the one that was opened."""
    return CheckpointError(
        f"{name}: changed during the build, so nothing was published; accepted: a checkpoint that stays as it is"
    )


def _remedy(file: Path) -> str:
    """What to do about a tokenizer that is there in another format only."""
    if file.name != "tokenizer.json" or file.exists():
        return ""
    if (file.parent / "tokenizer.model").exists():
        return "; tokenizer.model is SentencePiece's: transformers' AutoTokenizer loads it and saves a tokenizer.json"
    if any(file.parent.glob("tekken*.json")):
        return "; tekken.json is Mistral's own format: the model's Hugging Face repository has a tokenizer.json"
    return ""


def _accepted(name: str) -> str:
    return {".json": _JSON, ".safetensors": "a safetensors file"}.get(Path(name).suffix, "a regular file")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            child
            for item in level
            if isinstance(item, (dict, list))
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    raise RecursionError


def _integer(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:  # Python's limit, 4,300
        raise ValueError(f"a number of {len(digits)} digits") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise ValueError(f"name {json.dumps(name)[:80]} twice in one object")
        fields[name] = value
    return fields
