"""glibc's malloc, set to give memory back.

By default it raises its thresholds with the largest block that was freed, so that after one large body tens of MB stay
with the process. Fixed thresholds cost a system call for each block above them; tokens on their way need none.
"""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of mallopt(3)."""

_THRESHOLD_BYTES = 128 * 1024
"""glibc's own value at start."""


def give_memory_back() -> None:
    """Return freed blocks from 128 KiB on to the system at once, and the end of the heap when that much is free."""
    libc = ctypes.CDLL(None)
    for threshold in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
        libc.mallopt(threshold, _THRESHOLD_BYTES)
