"""What `make run` is still to install and to build, and how much disk and memory that and serving take."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

STAMP = Path(".venv", ".installed")
"""Written by the Makefile when everything that `make run` needs is in .venv."""

_REQUIREMENTS = (Path("pyproject.toml"), Path("constraints.txt"))
_SNAPSHOTS = "snapshots"
"""Of a model in the cache of huggingface_hub, which is accepted as a checkpoint too."""

_DEMO_CHECKPOINT = Path(".cache", "demo-checkpoint")
_ENGINE = Path("model_repository", "openvino", "1", "engine")

_MB = 10**6
ENVIRONMENT_BYTES = 1200 * _MB
"""Disk: 800 MB of packages, and what uv keeps of them in its cache."""

_DEMO_BYTES = 480 * _MB
"""Disk: the demo checkpoint. Its engine takes as much."""

_MAKING_DEMO_BYTES = 1800 * _MB
"""Memory: 760 MB, and 250 MB for each of four processes that quantise layers."""

_SERVING_BYTES = 2300 * _MB
"""Memory without the weights: a full KV cache of 1,074 MB, and 1,200 MB for Triton, its model and the frontend."""


@dataclass(frozen=True)
class Needs:
    """`packages` is whether packages are still to be installed."""

    packages: bool
    disk_bytes: int
    memory_bytes: int


def needs(checkpoint: Path) -> Needs:
    """Those of `make run CHECKPOINT=...`, from what lies in the working directory."""
    packages, is_demo = not is_installed(), checkpoint == _DEMO_CHECKPOINT
    weights = _DEMO_BYTES if is_demo else _weight_bytes(checkpoint)
    makes_demo = is_demo and not (checkpoint / "config.json").exists()
    builds = makes_demo or not _is_engine_of(checkpoint)
    return Needs(
        packages=packages,
        disk_bytes=packages * ENVIRONMENT_BYTES + makes_demo * weights + builds * weights,
        memory_bytes=max(makes_demo * _MAKING_DEMO_BYTES, _SERVING_BYTES + weights),
    )


def problems(checkpoint: Path) -> Iterator[str]:
    """What is wrong with the checkpoint, as far as a look at its directory says. The demo checkpoint is made."""
    is_one = (checkpoint / "config.json").is_file() or (checkpoint / _SNAPSHOTS).is_dir()
    if checkpoint != _DEMO_CHECKPOINT and not is_one:
        yield f"CHECKPOINT: {checkpoint} has no config.json; name the directory of an AutoAWQ Mixtral: CHECKPOINT=DIR"


def _weight_bytes(checkpoint: Path) -> int:
    """Of the files that links lead to; each counts once, though several snapshots may have it."""
    patterns = ("*.safetensors", f"{_SNAPSHOTS}/*/*.safetensors")
    files = {file.resolve() for pattern in patterns for file in checkpoint.glob(pattern)}
    return sum(file.stat().st_size for file in files)


def is_installed() -> bool:
    """By make's rule: the stamp is not older than what it was made from."""
    try:
        return all(STAMP.stat().st_mtime >= file.stat().st_mtime for file in _REQUIREMENTS)
    except OSError:
        return False


def _is_engine_of(checkpoint: Path) -> bool:
    """Whether the engine in place was built from this checkpoint or a snapshot of it, by name; the build checks."""
    try:
        built_from = json.loads((_ENGINE / "manifest.json").read_bytes())["checkpoint"]["path"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return Path(str(built_from)).is_relative_to(checkpoint.absolute())
