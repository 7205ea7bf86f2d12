"""Steps that are not repeated: each has a directory, renamed into place with a stamp when the step is finished.

A stamp holds the step's inputs, and sizes and times of its files. A step whose stamp has the present inputs is skipped;
anything else in its place is removed. So a build continues where an earlier one was killed, even by SIGKILL.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STAMP = "stamp.json"

Report = Mapping[str, Any]
"""JSON: the inputs of a step, or the facts that it reports."""


@dataclass(frozen=True, slots=True)
class WorkDir:
    """A directory of steps, for one build at a time. `say` shows a line."""

    path: Path
    say: Callable[[str], None]

    def step(self, name: str, inputs: Report, action: Callable[[Path], Report]) -> Path:
        """The directory with what `action` wrote, now or in an earlier build.

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
        stamp = {"inputs": inputs, "report": report, "files": _written(partial)}
        (partial / _STAMP).write_text(json.dumps(stamp, indent=2) + "\n")
        partial.rename(directory)
        return directory

    def is_done(self, name: str, inputs: Report) -> bool:
        """Whether the step was finished with these inputs and all its files are there."""
        stamp = self.stamp(name)
        if stamp is None or stamp["inputs"] != json.loads(json.dumps(inputs)):
            return False
        return bool(_written(self.path / name) == stamp["files"])

    def stamp(self, name: str) -> dict[str, Any] | None:
        """The stamp of a finished step, or None: its inputs, report and files."""
        try:
            stamp: dict[str, Any] = json.loads((self.path / name / _STAMP).read_bytes())
        except (OSError, ValueError):
            return None
        return stamp

    def forget(self, name: str) -> None:
        """Have the next build repeat the step. Until then its files stay, for inspection."""
        (self.path / name / _STAMP).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove what the steps wrote; logs and the timing cache stay."""
        for stamp in self.path.glob(f"*/{_STAMP}"):
            shutil.rmtree(stamp.parent, ignore_errors=True)


def _written(directory: Path) -> dict[str, list[int]]:
    """Bytes of every file but the stamp, and when it was written, in nanoseconds."""
    stats = {str(file.relative_to(directory)): file.stat() for file in directory.rglob("*") if file.is_file()}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items() if name != _STAMP}
