"""Read back what `trtllm-build` wrote, and check that it is the engine that was asked for."""

import json
from pathlib import Path

from build_engine.errors import EngineError
from build_engine.mixtral import MixtralConfig
from build_engine.model_config import Limits

from .commands import VERSION, is_release
from .config_check import compare_config, lookup
from .expected_config import engine_config

CONFIG = "config.json"


def check_engine(directory: Path, config: MixtralConfig, limits: Limits, tp_size: int) -> list[str]:
    """Raises EngineError for another limit, version, split or setting than asked for, or a rank without an engine.

    Returns warnings: fields that this build does not know, and that are off.
    """
    try:
        fields = json.loads((directory / CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise EngineError(f"engine {CONFIG}: cannot be read ({error})") from error
    version = lookup(fields, "version")
    if not is_release(str(version)):
        raise EngineError(f"engine {CONFIG}: version is {version!r}; accepted: {VERSION!r}")
    comparison = compare_config(fields, engine_config(config, limits, tp_size))
    if comparison.problem:
        raise EngineError(f"engine {CONFIG}: {comparison.problem}")
    for rank in range(tp_size):
        file = directory / f"rank{rank}.engine"
        if not file.is_file() or not file.stat().st_size:
            raise EngineError(f"{file.name}: missing or empty; accepted: one engine for each of {tp_size} ranks")
    return [f"engine {CONFIG}: {warning}" for warning in comparison.warnings]
