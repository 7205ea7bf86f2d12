"""The versions of an engine: `engines/1`, `engines/2`, ..., and `engine` beside them, a link to the one that is served.

A link is replaced in one step on every file system. So a reader sees the old engine or the new one, wherever a kill -9
stops a build, and a server that follows the link once keeps the engine that it has started with.

Not Triton's version directories: gpt_model_path in config.pbtxt is one path, and each version would load its engine.
"""

import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .manifest import describe

VERSIONS = "engines"


@dataclass(frozen=True, slots=True)
class Versions:
    """Those of the engine that `link` leads to. Only the holder of the build's lock may change them."""

    link: Path

    def path(self, number: int) -> Path:
        """The directory of a version."""
        return self.link.with_name(VERSIONS) / str(number)

    @property
    def served(self) -> int | None:
        """The version that the link names. None if there is no link: an earlier release made a directory."""
        try:
            target = self.link.readlink()
        except OSError:
            return None
        return next((number for number in self._numbers() if target == _target(number)), None)

    @property
    def previous(self) -> int | None:
        """The version that was served before: the one below the served, or after a rollback the one above."""
        served = self.served
        others = [number for number in self._numbers() if served is not None and number != served]
        return max((number for number in others if number < (served or 0)), default=max(others, default=None))

    def publish(self, stage: Path) -> None:
        """Serve what was written to `stage`, and keep what was served until now.

        Whichever of the steps is the last, `served` and `previous` are two complete engines.
        """
        numbers = self._numbers()
        before, number = self.served or max(numbers, default=None), max(numbers, default=0) + 1
        is_directory = self.link.is_dir() and not self.link.is_symlink()
        if is_directory:
            before, number = number, number + 1
        self.path(number).parent.mkdir(exist_ok=True)
        stage.rename(self.path(number))
        self._remove(given_up for given_up in numbers if given_up > (before or 0))  # by a rollback
        self._link(number, directory_to=self.path(before) if is_directory and before else None)
        self._remove(older for older in numbers if older < (before or 0))

    def switch(self, number: int) -> None:
        """Serve another version."""
        self._link(number)

    def clear(self) -> None:
        """Remove and mend what a kill -9 has left. The served version and the previous one stay."""
        shutil.rmtree(self._removed, ignore_errors=True)
        if self._partial_link.is_symlink():  # a read-only file system refuses to unlink what is not there
            self._partial_link.unlink()
        if (numbers := self._numbers()) and not self.link.exists():
            self._link(max(numbers))
        if (served := self.served) is not None:
            kept = {served, self.previous}
            self._remove(number for number in numbers if number not in kept)
        with suppress(OSError):
            self.link.with_name(VERSIONS).rmdir()  # if it is empty

    @property
    def _removed(self) -> Path:
        return self.link.with_name(f".{self.link.name}.removed")

    @property
    def _partial_link(self) -> Path:
        return self.link.with_name(f".{self.link.name}.link")

    def _numbers(self) -> list[int]:
        directory = self.link.with_name(VERSIONS)
        found = directory.iterdir() if directory.is_dir() else ()
        return sorted(int(path.name) for path in found if path.name.isdecimal() and path.is_dir())

    def _link(self, number: int, directory_to: Path | None = None) -> None:
        """Replace the link. A directory in its place is moved first; between these two renames nothing is served."""
        self._partial_link.unlink(missing_ok=True)
        self._partial_link.symlink_to(_target(number))
        if directory_to is not None:
            self.link.rename(directory_to)
        self._partial_link.rename(self.link)

    def _remove(self, numbers: Iterable[int]) -> None:
        """Under another name, so that what is half removed is never taken for a version."""
        for number in numbers:
            line = f"removed {self.path(number)}, {describe(self.path(number))}"
            try:
                self.path(number).rename(self._removed)
                shutil.rmtree(self._removed)
            except OSError as error:
                line = f"not {line}: {error.strerror}"
            sys.stderr.write(f"{line}\n")


def _target(number: int) -> Path:
    """What the link contains: relative, as a container has the repository under another path."""
    return Path(VERSIONS, str(number))
