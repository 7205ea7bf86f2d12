"""What this host has: GPUs, driver, memory, disk, and NVIDIA's programs. Facts only, which doctor.py judges."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .commands import Toolchain

_QUERY = "index,uuid,name,compute_cap,memory.total,memory.free"
"""Fields of nvidia-smi, in the order of `parse_gpus`."""
_MIB = 2**20
_STATE, _SESSION, _RESIDENT_PAGES = 0, 3, 21
"""Places of fields in /proc/ID/stat, counted after the program's name (proc(5) of Linux counts from the id as 1)."""
_HELP_TIMEOUT_S = 300.0
"""The converter's --help imports TensorRT-LLM first."""
_PACKAGE_PROBE = """
import importlib.metadata, importlib.util, json, pathlib
spec = importlib.util.find_spec("tensorrt_llm")
loader = pathlib.Path(spec.origin).parent / "layers" / "moe.py" if spec and spec.origin else None
print(json.dumps({
    "version": importlib.metadata.version("tensorrt_llm") if spec else None,
    "loader": loader.read_text() if loader and loader.exists() else "",
}))
"""
"""Finds the package without importing it, which would take long and need a GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledGpu:
    """A GPU as nvidia-smi reports it."""

    index: int
    name: str
    sm: int
    total_mib: int
    free_mib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """Everything that `doctor` judges. None or empty: it is missing, or does not answer."""

    gpus: tuple[InstalledGpu, ...]
    driver: str
    cuda: tuple[int, int] | None
    host_free_bytes: int
    disk_free_bytes: int
    shm_bytes: int
    tensorrt_llm: str | None
    loader_source: str
    converter_source: str
    converter_help: str
    build_help: str
    programs: Mapping[str, bool]
    has_backend: bool
    environment: Mapping[str, str]


def probe_host(tools: Toolchain, work_dir: Path) -> HostFacts:
    """Collect the facts; `work_dir` need not exist yet."""
    overview = _output([tools.nvidia_smi])
    package = _package(tools)
    return HostFacts(
        gpus=parse_gpus(_gpu_lines(tools, _QUERY)),
        driver=parse_driver(overview),
        cuda=parse_cuda(overview),
        host_free_bytes=_host_free_bytes(),
        disk_free_bytes=shutil.disk_usage(_existing(work_dir)).free,
        shm_bytes=shutil.disk_usage("/dev/shm").total,
        tensorrt_llm=package.get("version"),
        loader_source=package.get("loader") or "",
        converter_source=tools.converter.read_text() if tools.converter.is_file() else "",
        converter_help=_output([tools.python, str(tools.converter), "--help"]),
        build_help=_output([tools.trtllm_build, "--help"]),
        programs={name: shutil.which(name) is not None for name in (tools.tritonserver, tools.mpirun)},
        has_backend=tools.backend.is_dir(),
        environment=dict(os.environ),
    )


def gpu_memory_mib(tools: Toolchain) -> int:
    """Memory in use on the fullest GPU that programs see."""
    lines = _gpu_lines(tools, "index,uuid,memory.used").splitlines()
    used = (line.rpartition(",")[2].strip() for line in lines)
    return max((int(number) for number in used if number.isdecimal()), default=0)


def _gpu_lines(tools: Toolchain, fields: str) -> str:
    """nvidia-smi's lines of `fields`, the first of which are index and uuid, for the GPUs that programs see."""
    lines = _output([tools.nvidia_smi, f"--query-gpu={fields}", "--format=csv,noheader,nounits"])
    return visible_gpus(lines, os.environ.get("CUDA_VISIBLE_DEVICES"))


def visible_gpus(lines: str, devices: str | None) -> str:
    """The lines of the GPUs in CUDA_VISIBLE_DEVICES, in its order, which nvidia-smi does not heed. None: all of them.

    As CUDA reads it: by index, or by the beginning of a uuid; what comes after a name without a GPU is not seen.
    """
    if devices is None:
        return lines
    seen = []
    for device in devices.split(","):
        found = [line for line in lines.splitlines() if _is_gpu(line, device.strip())]
        if len(found) != 1:
            break
        seen += found
    return "\n".join(seen)


def _is_gpu(line: str, device: str) -> bool:
    index, uuid, *_ = (field.strip() for field in f"{line},".split(","))
    return device == index or (device.startswith("GPU-") and uuid.startswith(device))


def session_memory_mib(session: int) -> int:
    """Resident memory of all processes of a session together."""
    pages = sum(int(fields[_RESIDENT_PAGES]) for _, fields in _session(session))
    return pages * os.sysconf("SC_PAGE_SIZE") // _MIB


def session_processes(session: int) -> list[int]:
    """The ids of a session's processes, without those that have ended and were not yet waited for."""
    return [pid for pid, fields in _session(session) if fields[_STATE] not in "ZX"]


def _session(session: int) -> Iterator[tuple[int, list[str]]]:
    """Id and fields of /proc/ID/stat of each process of a session."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        # The name in front of the fields may contain spaces.
        fields = _read(stat).rpartition(")")[2].split()
        if fields and int(fields[_SESSION]) == session:
            yield int(stat.parent.name), fields


def parse_gpus(csv: str) -> tuple[InstalledGpu, ...]:
    """From nvidia-smi's lines of index, uuid, name, compute capability, total and free memory; others are skipped."""
    rows = [[field.strip() for field in line.split(",")] for line in csv.splitlines()]
    return tuple(
        InstalledGpu(index=int(index), name=name, sm=_sm(capability), total_mib=int(total), free_mib=int(free))
        for index, _, name, capability, total, free in (row for row in rows if len(row) == len(_QUERY.split(",")))
        if index.isdecimal() and total.isdecimal() and free.isdecimal()
    )


def parse_driver(overview: str) -> str:
    """The driver's version; since R610 nvidia-smi calls it KMD, the kernel-mode driver."""
    return _first(r"(?:Driver|KMD) Version\s*:\s*([\d.]+)", overview)


def parse_cuda(overview: str) -> tuple[int, int] | None:
    """The newest CUDA that the driver (with the image's compatibility libraries, the "UMD" of R610) can run."""
    version = re.search(r"CUDA (?:UMD )?Version\s*:\s*(\d+)\.(\d+)", overview)
    return (int(version[1]), int(version[2])) if version else None


def parse_memory(meminfo: str, cgroup_max: str, cgroup_current: str) -> int:
    """Free bytes of memory and swap on the machine, or what the container's limit leaves if that is less."""
    available = int(_first(r"MemAvailable:\s*(\d+) kB", meminfo) or 0) * 1024
    swap = int(_first(r"SwapFree:\s*(\d+) kB", meminfo) or 0) * 1024
    if not cgroup_max.strip().isdecimal():
        return available + swap
    return min(available + swap, int(cgroup_max) - int(cgroup_current.strip() or 0))


def _sm(capability: str) -> int:
    major, _, minor = capability.partition(".")
    return 10 * int(major) + int(minor or 0)


def _host_free_bytes() -> int:
    cgroup = Path("/sys/fs/cgroup")
    return parse_memory(
        Path("/proc/meminfo").read_text(), _read(cgroup / "memory.max"), _read(cgroup / "memory.current")
    )


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _package(tools: Toolchain) -> dict[str, str | None]:
    """Version and expert loader of the tensorrt_llm package, from the last line that the probe prints."""
    lines = _output([tools.python, "-c", _PACKAGE_PROBE]).splitlines()
    try:
        package: dict[str, str | None] = json.loads(lines[-1])
    except (IndexError, ValueError):
        return {}
    return package


def _output(command: Sequence[str]) -> str:
    """What a command prints, even if it fails; empty if it cannot be run."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_HELP_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _first(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else ""
