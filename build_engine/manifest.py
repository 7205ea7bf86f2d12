"""The manifest of an engine: what was built of what, and the hash of each file."""

import json
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .checkpoint import TEXT_FILES, Checkpoint
from .errors import EngineError
from .hashes import Hashes
from .model_config import Limits
from .regular_file import MIB, read_regular

MANIFEST = "manifest.json"
USAGE = "usage"
"""Field of the manifest for what a build took."""
BUILT = "built"
"""Field of the manifest for when and by which release the engine was built."""
_NOT_COMPARED = dict.fromkeys(("files", USAGE, BUILT))
"""`files` follows from the rest; the others differ between equal engines."""
_MANIFEST_BYTES = 4 * MIB
FORMAT = 4
"""Field `format` of the manifest. Since 4, `files` and `checkpoint.files` have the SHA-256 of each file."""


def make_manifest(
    target: str, checkpoint: Checkpoint, hashes: Hashes, limits: Limits, versions: Mapping[str, str]
) -> dict[str, Any]:
    """What was built from what, with which versions, for which limits; equal manifests mean equal engines.

    Raises CheckpointError when the checkpoint was changed since it was opened.
    """
    return {
        "format": FORMAT,
        "target": target,
        "checkpoint": {"path": checkpoint.name, "files": checkpoint.contents(hashes)},
        "versions": dict(versions),
        "model": {
            "vocab_size": checkpoint.config.vocab_size,
            "kv_bytes_per_token": checkpoint.config.kv_bytes_per_token,
            "end_tokens": checkpoint.end_tokens.to_json(),
        },
        "limits": limits.to_json(),
    }


def built_now() -> dict[str, str]:
    """The field BUILT of an engine that is built at this moment."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "by": f"mixtral-triton {version('mixtral-triton')}",
    }


def kept_fields(engine_dir: Path) -> dict[str, Any]:
    """USAGE and BUILT of the engine in place, for one that takes its files over."""
    published = read_manifest(engine_dir)
    return {name: published[name] for name in (USAGE, BUILT) if name in published}


def describe(engine_dir: Path) -> str:
    """Which engine lies there, in words for the log: its checkpoint, and what built it when."""
    try:
        manifest = read_manifest(engine_dir)
    except EngineError:
        return "no engine of this release"
    versions, built = manifest.get("versions"), manifest.get(BUILT)
    parts = [f"of {manifest['checkpoint'].get('path')}"]
    if isinstance(built, dict):
        parts.append(f"built {built.get('at')} by {built.get('by')}")
    if isinstance(versions, dict):
        parts.append("with " + ", ".join(f"{package} {number}" for package, number in versions.items()))
    return " ".join(parts)


def is_published(engine_dir: Path, manifest: dict[str, Any], hashes: Hashes) -> bool:
    """Whether the engine in place is the one that this manifest describes, with the contents of all its files."""
    try:
        published = read_manifest(engine_dir)
        if published | _NOT_COMPARED != manifest | _NOT_COMPARED:
            return False
        return bool(published["files"] == published_files(engine_dir, hashes))
    except (OSError, EngineError):
        return False


def read_manifest(engine_dir: Path) -> dict[str, Any]:
    """The manifest of the engine in place. Raises EngineError for none of this format."""
    file, accepted = engine_dir / MANIFEST, f"a manifest of format {FORMAT}; build the engine again"
    try:
        manifest = json.loads(read_regular(file, _MANIFEST_BYTES))
    except OSError as error:
        raise EngineError(f"{file}: cannot be read ({error.strerror}); accepted: {accepted}") from error
    except (ValueError, RecursionError) as error:
        raise EngineError(f"{file}: does not parse ({error}); accepted: {accepted}") from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise EngineError(f"{file}: format is {found!r:.80}; accepted: {accepted}")
    checkpoint = manifest.get("checkpoint")
    if not isinstance(manifest.get("files"), dict) or not isinstance(checkpoint, dict) or "files" not in checkpoint:
        raise EngineError(f"{file}: lacks files or checkpoint.files; accepted: {accepted}")
    return dict(manifest)


def has_same_engine(engine_dir: Path, manifest: dict[str, Any], names: Sequence[str], hashes: Hashes) -> bool:
    """Whether the files `names` of the engine in place are those that a build for this manifest would write again.

    All that is in the manifest counts, but for what follows from the checkpoint's TEXT_FILES and from its path.
    """
    try:
        published = read_manifest(engine_dir)
        if _engine_part(published) != _engine_part(manifest):
            return False
        return all(published["files"].get(name) == hashes.of(engine_dir / name) for name in names)
    except (OSError, EngineError, KeyError, TypeError):
        return False


def _engine_part(manifest: dict[str, Any]) -> dict[str, Any]:
    files = {name: digest for name, digest in manifest["checkpoint"]["files"].items() if name not in TEXT_FILES}
    model = {name: value for name, value in manifest["model"].items() if name != "end_tokens"}
    return {**manifest, "checkpoint": files, "model": model, **_NOT_COMPARED}


def published_files(directory: Path, hashes: Hashes) -> dict[str, str]:
    """The SHA-256 of every file but the manifest itself. Raises OSError for what is no regular file."""
    names = sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir())
    return {name: hashes.of(directory / name) for name in names if name != MANIFEST}
