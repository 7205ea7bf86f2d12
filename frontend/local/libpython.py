"""The shared library of this Python, which the stub of Triton's Python backend embeds. Imports no package."""

import subprocess
import sys
import sysconfig
from pathlib import Path


class LibpythonMissing(Exception):
    """The library is not on this machine; the message says what to install."""


def libpython_dir() -> Path:
    """A directory for LD_LIBRARY_PATH. The library is in it, or where the dynamic loader looks by itself.

    Raises LibpythonMissing.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    name = f"libpython{version}.so.1.0"
    # LIBDIR is where Python was built to be installed, which need not be where it is.
    directories = [Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib"), Path(sys.base_prefix, "lib")]
    for directory in directories:
        if (directory / name).exists():
            return directory
    cache = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=False)
    if name in cache.stdout:
        return directories[0]
    raise LibpythonMissing(
        f"{name} is missing, which Triton's Python backend needs; install it with: apt-get install libpython{version}"
        " (a Python of pyenv has it if it was built with PYTHON_CONFIGURE_OPTS=--enable-shared)"
    )
