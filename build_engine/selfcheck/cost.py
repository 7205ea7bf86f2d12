"""What a check costs: seconds, and the most memory that was in use meanwhile."""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_SAMPLE_S = 0.5
_GPU_SAMPLE_S = 2.0
"""nvidia-smi takes some tenths of a second on hosts with many GPUs."""
_MIB = 2**20
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PARENT, _RESIDENT_PAGES = 1, 21
"""Fields of /proc/PID/stat behind the program's name: the parent's id, and resident memory in pages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """`host_mib` is the resident memory of this process and all below it, shared pages counted for each.

    `gpu_mib` is what is in use on the fullest GPU; None without GPUs.
    """

    seconds: float
    host_mib: int
    gpu_mib: int | None

    def __str__(self) -> str:
        gpu = "" if self.gpu_mib is None else f", {self.gpu_mib} MiB of GPU memory"
        return f"{self.seconds:.1f} s, {self.host_mib} MiB of host memory{gpu}"


class Meter:
    """Measures one check at a time. `gpu_mib` reads the memory in use on the fullest GPU; None without GPUs."""

    def __init__(self, gpu_mib: Callable[[], int] | None) -> None:
        self._gpu_mib = gpu_mib

    @contextmanager
    def measure(self) -> Iterator[Callable[[], Cost]]:
        """Sample memory inside the block. The function that it yields returns the cost once the block has ended."""
        started = time.monotonic()
        peaks = _Peaks(self._gpu_mib)
        ended = threading.Event()
        sampler = threading.Thread(target=peaks.sample_until, args=(ended,), daemon=True)
        sampler.start()
        costs: list[Cost] = []
        try:
            yield lambda: costs[0]
        finally:
            ended.set()
            sampler.join()
            gpu_mib = None if self._gpu_mib is None else peaks.gpu_mib
            costs.append(Cost(seconds=time.monotonic() - started, host_mib=peaks.host_mib, gpu_mib=gpu_mib))


class _Peaks:
    """The most of each that was seen."""

    def __init__(self, read_gpu_mib: Callable[[], int] | None) -> None:
        self._read_gpu_mib = read_gpu_mib
        self.host_mib = 0
        self.gpu_mib = 0

    def sample_until(self, ended: threading.Event) -> None:
        next_gpu_sample = 0.0
        while True:
            self.host_mib = max(self.host_mib, resident_mib(os.getpid()))
            if self._read_gpu_mib is not None and time.monotonic() >= next_gpu_sample:
                self.gpu_mib = max(self.gpu_mib, self._read_gpu_mib())
                next_gpu_sample = time.monotonic() + _GPU_SAMPLE_S
            if ended.wait(_SAMPLE_S):
                return


def resident_mib(process_id: int) -> int:
    """Resident memory of a process and of all its descendants."""
    children: dict[int, list[int]] = defaultdict(list)
    pages: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            children[int(fields[_PARENT])].append(int(entry.name))
            pages[int(entry.name)] = int(fields[_RESIDENT_PAGES])
    total, waiting = 0, [process_id]
    while waiting:
        process = waiting.pop()
        total += pages.get(process, 0)
        waiting += children[process]
    return total * _PAGE // _MIB
