"""What `pip install` is at, from the lines that it prints. Pure."""

import re

_COLLECTING = re.compile(r"Collecting (?P<name>[A-Za-z0-9._-]+)")
_FILE = re.compile(r" *(?P<action>Downloading|Using cached) (?P<file>\S+?)(?:\.metadata)?(?: \((?P<size>[^)]*)\))?$")
_PREPARING = re.compile(r" *(?P<what>(Preparing|Building|Getting) .*?)(: started| \()")
_INSTALLING = re.compile(r"Installing collected packages: (?P<names>.+)")


class PipOutput:
    """Feed it lines; ask for its state at any time."""

    def __init__(self) -> None:
        self._found: set[str] = set()
        self._doing = "starting pip"
        self._to_install: list[str] = []

    def feed(self, line: str) -> None:
        """A line without its end."""
        if found := _COLLECTING.match(line):
            self._found.add(found["name"].lower())
            self._doing = f"looking for {found['name']}"
        elif found := _FILE.match(line):
            file = found["file"].rsplit("/", 1)[-1]
            size = f" ({found['size']})" if found["size"] else ""
            verb = "downloading" if found["action"] == "Downloading" else "reading"
            self._doing = f"{verb} {'-'.join(file.split('-')[:2])}{size}"
        elif found := _PREPARING.match(line):
            self._doing = found["what"].lower()
        elif found := _INSTALLING.match(line):
            self._to_install = found["names"].split(", ")

    def state(self, num_installed: int) -> tuple[str, float | None]:
        """In words, and as a share of the work as far as it is known. `num_installed` is since pip was started."""
        if not self._to_install:
            unit = "package" if len(self._found) == 1 else "packages"
            count = f"{len(self._found)} {unit} found, " if self._found else ""
            return f"{count}{self._doing}", None
        total = len(self._to_install)
        return f"installed {num_installed} of {total} packages", min(num_installed / total, 1)
