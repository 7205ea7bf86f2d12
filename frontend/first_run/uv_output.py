"""What `uv pip install` is at, from the lines that it prints without a terminal. Pure."""

import re

_RESOLVED = re.compile(r"Resolved (?P<count>\d+) packages? in")
_DOWNLOADING = re.compile(r"Downloading (?P<name>\S+) \((?P<size>[0-9.]+)(?P<unit>[KMG])iB\)")
"""Only of files of at least 1 MiB, all of which it downloads at once."""

_DOWNLOADED = re.compile(r" *Downloaded (?P<name>\S+)")
_BUILDING = re.compile(r" *Building (?P<name>\S+)")
_PREPARED = re.compile(r"Prepared (?P<count>\d+) packages? in")
_MIB = {"K": 1 / 1024, "M": 1, "G": 1024}


class UvOutput:
    """Feed it lines; ask for its state at any time."""

    def __init__(self) -> None:
        self._doing = "looking for packages"
        self._pending: dict[str, float] = {}
        self._done_mib = 0.0

    def feed(self, line: str) -> None:
        """A line without its end."""
        if found := _RESOLVED.match(line):
            self._doing = f"{found['count']} packages found"
        elif found := _DOWNLOADING.match(line):
            self._pending[found["name"]] = float(found["size"]) * _MIB[found["unit"]]
        elif found := _DOWNLOADED.match(line):
            self._done_mib += self._pending.pop(found["name"], 0.0)
        elif found := _BUILDING.match(line):
            self._doing = f"building {found['name']}"
        elif found := _PREPARED.match(line):
            self._doing = f"unpacking {found['count']} packages"

    def state(self, num_installed: int) -> tuple[str, float | None]:
        """In words, and as a share of the work as far as it is known. `num_installed` is since uv was started."""
        if num_installed:
            return f"installed {num_installed} packages", None
        if not self._pending:
            return self._doing, None
        size = self._done_mib + sum(self._pending.values())
        largest = max(self._pending, key=self._pending.__getitem__)
        return f"downloaded {self._done_mib:.0f} of {size:.0f} MiB, now {largest}", self._done_mib / size
