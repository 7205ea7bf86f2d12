"""Whether this Python and this system can run everything.

Written for Python 3.6 on, so that an older Python than the accepted ones says which it needs.
"""

import importlib.util
import os
import platform
import sys
from typing import Iterator

ACCEPTED = ((3, 11), (3, 12))
"""Triton's Python backend is built against numpy 1, whose last wheels are for 3.12. Some pins have none for 3.10."""

GLIBC = (2, 35)
"""What the wheel of nvidia-pytriton is built for (manylinux_2_35)."""


def problems() -> Iterator[str]:
    """What is wrong, each with its remedy. If there is something, no other module of this package can be imported."""
    python, version = sys.executable, sys.version_info[:2]
    if version not in ACCEPTED:
        yield (
            f"needs Python 3.11 or 3.12, and {python} is {platform.python_version()}. Install one, on Debian and Ubuntu"
            " with: apt-get install python3.11 python3.11-venv libpython3.11 (or 3.12); or name one that is not on the"
            " PATH: make PYTHON=/path/to/python3.12 ..."
        )
    elif platform.python_implementation() != "CPython":
        yield f"needs CPython, and {python} is {platform.python_implementation()}; name another: make PYTHON=... ..."
    elif not _has("ensurepip") or not _has("venv"):
        yield (
            f"{python} cannot make a virtual environment. Install the rest of it, on Debian and Ubuntu with:"
            f" apt-get install python{version[0]}.{version[1]}-venv"
        )
    yield from system_problems(sys.platform, platform.machine(), _libc())


def system_problems(system: str, machine: str, libc: str) -> Iterator[str]:
    """The same of the system, as `sys`, `platform` and confstr(3) name it."""
    needed = f"glibc {GLIBC[0]}.{GLIBC[1]} or newer, as in Debian 12, Ubuntu 22.04 and RHEL 10"
    if (system, machine) != ("linux", "x86_64"):
        yield f"needs Linux on x86_64, and this is {system} on {machine}; use such a machine, or a virtual one"
    elif not libc.startswith("glibc "):
        yield f"needs {needed}, and the C library of this system is another; use such a system, or a container of it"
    elif tuple(int(number) for number in libc[len("glibc ") :].split(".")[:2]) < GLIBC:
        yield f"needs {needed}, and this system has {libc}; use a newer system, or a container of it"


def _libc() -> str:
    """For example "glibc 2.36"; empty if it is another library."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, OSError, ValueError):
        return ""


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
