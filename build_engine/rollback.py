"""Serve the engine that was served before. The present one is kept, so that a second rollback undoes the first."""

from pathlib import Path
from typing import Any

from .check_published import check_engine_files
from .errors import RepositoryError
from .hashes import remembered_hashes
from .manifest import describe, read_manifest
from .model_config import ServingConfig, read_serving_config
from .publish import ENGINE, only_engine_build
from .signals import uninterrupted
from .versions import Versions


def rollback(model_dir: Path) -> str:
    """Returns in words which engine is served from the next start on.

    Raises RepositoryError when no engine was kept, or config.pbtxt has other limits than it was built for; EngineError
    when its files are not those of its manifest.
    """
    engine_dir = model_dir / ENGINE
    versions = Versions(engine_dir)
    if not engine_dir.parent.is_dir():
        raise _nothing_kept(engine_dir)
    with only_engine_build(engine_dir), remembered_hashes(engine_dir) as hashes:
        number = versions.previous
        if number is None:
            raise _nothing_kept(engine_dir)
        kept = versions.path(number)
        manifest = read_manifest(kept)
        _check_limits(read_serving_config(model_dir / "config.pbtxt"), manifest, kept)
        check_engine_files(kept, manifest, hashes)
        with uninterrupted():
            versions.switch(number)
    served = f"{engine_dir} is {kept.relative_to(engine_dir.parent)} now, {describe(kept)}"
    return f"{served}; a server that runs keeps the other one: start it again"


def _nothing_kept(engine_dir: Path) -> RepositoryError:
    return RepositoryError(
        f"{engine_dir}: no engine from before is kept; accepted: a repository in which a build has replaced an engine"
    )


def _check_limits(config: ServingConfig, manifest: dict[str, Any], kept: Path) -> None:
    """Triton would start the engine with limits that it was not built for."""
    configured = dict(config.limits.to_json())
    built_for = dict(manifest.get("limits") or {})
    if "tensor_parallel_size" in manifest:
        configured["tensor_parallel_size"] = config.tensor_parallel_size
        built_for["tensor_parallel_size"] = manifest["tensor_parallel_size"]
    differences = [
        f"{name} is {configured.get(name)}, and {kept} was built for {built_for.get(name)}"
        for name in sorted({*configured, *built_for})
        if configured.get(name) != built_for.get(name)
    ]
    if differences:
        raise RepositoryError(
            f"{config.path}: {'; '.join(differences)}; accepted: the limits of that engine: write them there first"
        )
