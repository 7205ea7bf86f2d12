"""A repository in Hugging Face's cache, models--ORG--NAME: `refs`, `snapshots` of links, and `blobs` that they lead to.

Source: huggingface_hub's guide "Understand caching". Nothing is downloaded here.
"""

from pathlib import Path

from .checkpoint_files import read_small
from .errors import CheckpointError

_MAIN = Path("refs", "main")
_SNAPSHOTS = "snapshots"
_REVISION_BYTES = 256
"""A commit has 40 characters."""


def snapshot_of(path: Path) -> Path:
    """The snapshot of refs/main, else the only one, if `path` is such a repository; any other path as it is.

    Raises CheckpointError that says which snapshots there are, if it cannot be told which one is meant.
    """
    snapshots = path / _SNAPSHOTS
    if (path / "config.json").exists() or not snapshots.is_dir():
        return path
    found = sorted(entry.name for entry in snapshots.iterdir() if entry.is_dir())
    if not (path / _MAIN).exists():
        if len(found) == 1:
            return snapshots / found[0]
        raise _unclear(path, f"has no {_MAIN}", found)
    revision = read_small(path / _MAIN, _REVISION_BYTES).decode(errors="replace").strip()
    if revision not in found:
        raise _unclear(path, f"names {revision!r} in {_MAIN}, which is not in {_SNAPSHOTS}", found)
    return snapshots / revision


def _unclear(path: Path, what: str, found: list[str]) -> CheckpointError:
    shown = ", ".join(found[:5]) or "none"
    return CheckpointError(f"{path}: {what}; accepted: one of its {_SNAPSHOTS} ({shown}), by its own path")
