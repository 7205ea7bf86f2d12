"""One text for Prometheus from those of several worker processes. Pure.

Counters and histograms are added up, also those of processes that have ended: a counter must never fall.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_GROWING = frozenset({"counter", "histogram"})
"""The types whose values only grow."""

_START_TIME = "process_start_time_seconds"


@dataclass(slots=True)
class _Family:
    """A metric: the lines of its comments, its type, and the value of each series."""

    comments: list[str]
    type: str
    values: dict[str, float] = field(default_factory=dict)

    def add(self, series: str, value: float) -> None:
        """Take the value of one more process."""
        if series not in self.values:
            self.values[series] = value
        elif series.startswith(_START_TIME):
            self.values[series] = min(self.values[series], value)
        elif self.type in _GROWING or not _is_info(series):
            self.values[series] += value


def sum_of(running: Sequence[bytes], ended: Sequence[bytes] = ()) -> bytes:
    """The text of all processes together; of those that have `ended`, only what was counted."""
    families: dict[str, _Family] = {}
    for text in running:
        for name, family in _parse(text):
            _add(families, name, family)
    for text in ended:
        for name, family in _parse(text):
            if family.type in _GROWING:
                _add(families, name, family)
    lines = [line for family in families.values() for line in _lines(family)]
    return "\n".join([*lines, ""]).encode()


def _add(families: dict[str, _Family], name: str, family: _Family) -> None:
    known = families.setdefault(name, _Family(family.comments, family.type))
    for series, value in family.values.items():
        known.add(series, value)


def _parse(text: bytes) -> Iterator[tuple[str, _Family]]:
    """The metrics of one text, each with its name. A comment HELP begins each, as prometheus-client writes it."""
    name, family = "", _Family([], "")
    for line in text.decode().splitlines():
        if line.startswith("# HELP "):
            if name:
                yield name, family
            name, family = line.split(" ", 3)[2], _Family([line], "")
        elif line.startswith("# TYPE "):
            family.comments.append(line)
            family.type = line.rpartition(" ")[2]
        else:
            series, _, value = line.rpartition(" ")
            family.values[series] = float(value)
    if name:
        yield name, family


def _is_info(series: str) -> bool:
    """Whether its labels say what there is; its value is always 1."""
    return series.partition("{")[0].endswith("_info")


def _lines(family: _Family) -> Iterator[str]:
    yield from family.comments
    for series, value in family.values.items():
        yield f"{series} {value!r}"
