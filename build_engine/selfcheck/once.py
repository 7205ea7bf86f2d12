"""Remember that an image has passed on these GPUs, so that `make engine` need not wait for it again."""

import json
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from build_engine.tensorrt_llm.host import InstalledGpu

from .installed import DISTRIBUTION

_STAMP = "passed.json"


def stamp_of(image: str, gpus: Sequence[InstalledGpu], driver: str) -> dict[str, Any]:
    """What the outcome depends on: the image, which has this product in it, the GPUs and their driver."""
    try:
        own = version(DISTRIBUTION)
    except PackageNotFoundError:
        own = ""
    return {"image": image, "version": own, "gpus": [gpu.name for gpu in gpus], "driver": driver}


def has_passed(work_dir: Path, stamp: dict[str, Any]) -> bool:
    """Whether `remember` was called with this very stamp."""
    try:
        return bool(json.loads((work_dir / _STAMP).read_bytes()) == stamp)
    except (OSError, ValueError):
        return False


def remember(work_dir: Path, stamp: dict[str, Any] | None) -> None:
    """Write the stamp of a run without failures; None removes an older one."""
    if stamp is None:
        (work_dir / _STAMP).unlink(missing_ok=True)
    else:
        (work_dir / _STAMP).write_text(json.dumps(stamp) + "\n")
