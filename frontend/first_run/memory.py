"""How much memory this process and its children may use."""

import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")

_MB = 10**6
_ADDRESS_SPACE_BYTES = 8_000 * _MB
"""Mapped beside what is needed: Triton's Python process maps 4 GB with the demo, and uses a part of it."""


def problems(needed_bytes: int) -> Iterator[str]:
    """What is wrong if serving takes `needed_bytes`."""
    available = available_bytes()
    if available < needed_bytes:
        yield (
            f"memory: {available // _MB} MB are free, {needed_bytes // _MB} MB are needed."
            " End other programs, or raise the limit of this container or machine"
        )
    limit, mapped = resource.getrlimit(resource.RLIMIT_AS)[0], needed_bytes + _ADDRESS_SPACE_BYTES
    if limit != resource.RLIM_INFINITY and limit < mapped:
        yield (
            f"memory: this shell lets a process map {limit // _MB} MB (ulimit -v);"
            f" accepted: {mapped // _MB} MB or more. Lift the limit: ulimit -v unlimited"
        )


def available_bytes() -> int:
    """Of the machine, with its swap, and of the groups of processes (cgroups) that this one is in."""
    fields = dict(line.split(":") for line in (PROC / "meminfo").read_text().splitlines())
    machine = sum(int(fields[name].split()[0]) * 1024 for name in ("MemAvailable", "SwapFree"))
    return min([machine, *_left_in_groups()])


def _left_in_groups() -> Iterator[int]:
    """What each group has left; memory of its files that could be given up counts as left."""
    for group, names in _groups():
        try:
            limit = int((group / names.limit).read_text())  # ValueError: "max"
            used = int((group / names.used).read_text())
            fields = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            yield limit - used + int(fields[names.files])
        except (OSError, ValueError, KeyError):
            continue


def _groups() -> Iterator[tuple[Path, "_Names"]]:
    """This process's groups and those around them. In a container their paths may be those of the host."""
    try:
        lines = (PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if names := _VERSIONS.get(controllers):
            root = CGROUPS / names.root
            group = root / path.lstrip("/")
            yield from ((place, names) for place in (group, *group.parents) if place.is_relative_to(root))


@dataclass(frozen=True)
class _Names:
    """Of files and of a field of memory.stat, in one version of cgroups."""

    root: str
    limit: str
    used: str
    files: str


_VERSIONS = {
    "": _Names("", "memory.max", "memory.current", "inactive_file"),
    "memory": _Names("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""By the controllers in /proc/self/cgroup: version 2 has none there."""
