"""The default model repository, for a working directory outside a checkout: created once from the installed sources."""

import shutil
from pathlib import Path

from .errors import RepositoryError

MODEL_REPOSITORY = Path("model_repository")
"""The default of --model-repository, in the working directory."""
_INSTALLED = Path(__file__).parents[1] / "model_repository"
"""Beside the packages, in a checkout as in site-packages. A container image lacks it: there one is mounted."""
_SOURCES = ("*/config.pbtxt", "*/1/*.py", "*/1/README")
"""The files that pyproject.toml puts into the wheel. A checkout also has the engines that were built in it."""


def create_default(repository: Path) -> bool:
    """Copy the installed sources to `repository` if it is the default one and does not exist. True if they were copied.

    The copy is renamed into place when complete, so a file that exists is never overwritten. Raises RepositoryError.
    """
    try:
        if repository != MODEL_REPOSITORY or repository.exists() or not _INSTALLED.exists():
            return False
        _copy_sources(repository)
    except OSError as error:
        raise RepositoryError(
            f"{repository}: cannot be created ({error.strerror or error}); accepted: a writable working directory"
        ) from error
    return True


def _copy_sources(repository: Path) -> None:
    partial = repository.with_name(f".{repository.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    try:
        for source in (file for pattern in _SOURCES for file in _INSTALLED.glob(pattern)):
            target = partial / source.relative_to(_INSTALLED)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        partial.rename(repository)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
