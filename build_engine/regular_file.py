"""Regular files only: a FIFO would stop the build for ever, and a device has no end.

What cannot be read raises OSError, whose `strerror` says why.
"""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MIB = 2**20
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileState:
    """What the file system says of a file: equal states mean that it was not written. Times are in nanoseconds.

    The kernel sets `ctime_ns` at every write, to nothing but its own clock; at a chmod and a new hard link too.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    def written_since(self, earlier: "FileState") -> bool:
        """Whether the file was written, as far as sizes and dates tell. A chmod or a new hard link does not count."""
        return (self.size, self.mtime_ns) != (earlier.size, earlier.mtime_ns)


def state_of(path: Path) -> FileState:
    """The state of a regular file, links followed. Raises OSError, also for anything else."""
    try:
        found = path.stat()
    except ValueError as error:  # a NUL in the name, or half of a surrogate pair
        raise OSError(errno.EINVAL, "no possible name", str(path)) from error
    return _regular_state(found, path)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to read. Raises OSError, also for anything else."""
    state_of(path)  # before the open, which acts on some devices
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(descriptor, "rb")
    try:
        _regular_state(os.fstat(descriptor), path)
    except OSError:
        file.close()
        raise
    return file


def read_regular(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file of at most `max_bytes`. Raises OSError, also for a larger one."""
    with open_regular(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"larger than {max_bytes // MIB} MiB", str(path))
    return content


def _regular_state(found: os.stat_result, path: Path) -> FileState:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "of an unknown kind")
        raise OSError(errno.EINVAL, f"{kind}, not a regular file", str(path))
    return FileState(size=found.st_size, mtime_ns=found.st_mtime_ns, ctime_ns=found.st_ctime_ns, inode=found.st_ino)
