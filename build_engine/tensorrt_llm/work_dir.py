"""Steps that need not be done twice: each has a directory, renamed into place with a stamp when it is finished.

A stamp holds what went into the step and the files that came out. A step whose stamp says the same as what would go in
now is skipped; whatever else is found in its place is cleared. So a build goes on where it was killed, even by SIGKILL.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from build_engine.publish import file_sizes

_STAMP = "stamp.json"

Report = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class WorkDir:
    """A directory of steps, which one build has to itself."""

    path: Path
    say: Callable[[str], None]

    def step(self, name: str, inputs: Report, action: Callable[[Path], Report]) -> Path:
        """The directory with what `action` wrote, from now or from before.

        `action` gets an empty directory to write to, and returns facts to keep in the stamp.
        """
        directory, partial = self.path / name, self.path / f"{name}.partial"
        if self.is_done(name, inputs):
            self.say(f"{name}: done already")
            return directory
        for leftover in (directory, partial):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir(parents=True)
        report = action(partial)
        stamp = {"inputs": inputs, "report": report, "files": file_sizes(partial)}
        (partial / _STAMP).write_text(json.dumps(stamp, indent=2) + "\n")
        partial.rename(directory)
        return directory

    def is_done(self, name: str, inputs: Report) -> bool:
        """Whether the step was finished with these inputs, and its files are all there."""
        stamp = self.stamp(name)
        if stamp is None or stamp["inputs"] != json.loads(json.dumps(inputs)):
            return False
        sizes = file_sizes(self.path / name)
        return bool({file: size for file, size in sizes.items() if file != _STAMP} == stamp["files"])

    def stamp(self, name: str) -> dict[str, Any] | None:
        """What is known of a finished step."""
        try:
            stamp: dict[str, Any] = json.loads((self.path / name / _STAMP).read_bytes())
        except (OSError, ValueError):
            return None
        return stamp

    def forget(self, name: str) -> None:
        """Have the step done again next time; what it wrote stays until then, to be looked at."""
        (self.path / name / _STAMP).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove what the steps wrote; logs and the timing cache stay."""
        for stamp in self.path.glob(f"*/{_STAMP}"):
            shutil.rmtree(stamp.parent, ignore_errors=True)
