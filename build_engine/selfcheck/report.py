"""The lines of the self check, and their text: no path of the host is in it, so that it can be pasted anywhere."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from build_engine.errors import BuildError

from .cost import Cost, Meter

Status = Literal["passed", "failed", "not known"]
Check = Callable[[], str]
"""Returns what was found. Raises NotKnown if it cannot tell, BuildError or another exception if something is wrong."""

_PATH = re.compile(r"(?<![\w.:/>])/(?:[^\s'\",;:()/]+/)*([^\s'\",;:()/]+)/?")
_TEXT_LENGTH = 300
"""Characters of a line's text: messages of NVIDIA's libraries may be pages long."""


class NotKnown(Exception):
    """A check cannot be made here; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One check: what was found, or why it failed, or why it could not be made."""

    status: Status
    subject: str
    text: str
    cost: Cost | None = None

    def __str__(self) -> str:
        cost = f" ({self.cost})" if self.cost else ""
        return f"{self.status:<9}  {self.subject:<40}  {self.text}{cost}"


class Report:
    """Makes the checks one after another; whatever one of them raises becomes its line.

    `show` gets the name of each check before it, and the line if it failed. `places` are directories with the names
    that stand for them in the report.
    """

    def __init__(self, meter: Meter, show: Callable[[str], None], places: Mapping[str, Path]) -> None:
        self.lines: list[Line] = []
        self._meter = meter
        self._show = show
        self._places = places

    def check(self, subject: str, check: Check) -> bool:
        """Make a check and its line. Returns whether it passed."""
        self._show(f"selfcheck: {subject}")
        with self._meter.measure() as measured:
            status, text = _outcome(check)
        return self._add(subject, status, text, measured())

    def check_measured(self, subject: str, check: Check, cost: Cost | None) -> bool:
        """The same for a check that only says how something went: `cost` is what that took."""
        return self._add(subject, *_outcome(check), cost)

    def measure(self, what: str, action: Callable[[], object]) -> Cost:
        """What an action takes, which makes no line."""
        self._show(f"selfcheck: {what}")
        with self._meter.measure() as measured:
            action()
        return measured()

    def not_known(self, subjects: Iterable[str], why: str) -> None:
        """Checks that are not tried."""
        for subject in subjects:
            self.lines.append(Line(status="not known", subject=subject, text=self._hidden(why)))

    def text(self) -> str:
        """All lines, and how many there are of each kind."""
        counts = {status: sum(line.status == status for line in self.lines) for status in ("passed", "failed")}
        unknown = len(self.lines) - sum(counts.values())
        total = f"{counts['passed']} passed, {counts['failed']} failed, {unknown} not known"
        return "\n".join([*map(str, self.lines), total]) + "\n"

    @property
    def failures(self) -> int:
        """How many checks failed."""
        return sum(line.status == "failed" for line in self.lines)

    def _add(self, subject: str, status: Status, text: str, cost: Cost | None) -> bool:
        known_cost = None if status == "not known" else cost
        line = Line(status=status, subject=subject, text=self._hidden(text), cost=known_cost)
        self.lines.append(line)
        if status == "failed":
            self._show(f"selfcheck: {line}")
        return status == "passed"

    def _hidden(self, text: str) -> str:
        return hide_paths(" ".join(text.split()), self._places)[:_TEXT_LENGTH]


def hide_paths(text: str, places: Mapping[str, Path]) -> str:
    """`text` with a name in place of each of `places`, and only the last part of any other absolute path."""
    for name, place in sorted(places.items(), key=lambda item: -len(str(item[1]))):
        if place != Path("/"):
            text = text.replace(str(place), f"<{name}>")
    return _PATH.sub(r"\1", text)


def _outcome(check: Check) -> tuple[Status, str]:
    try:
        return "passed", check()
    except NotKnown as reason:
        return "not known", str(reason)
    except BuildError as error:
        return "failed", str(error)
    except Exception as error:  # one broken check must not hide what the others find
        return "failed", f"{type(error).__name__}: {error}"
