"""`make resolve`: do the pinned packages install on the accepted Pythons that are not the running one?

pip resolves them from the package index without installing: each must have a wheel, and fit the others.
"""

import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

from frontend.first_run.install import FIRST, requirements
from frontend.first_run.interpreter import ACCEPTED

ROOT = Path(__file__).parents[3]
_MAKEFILE = (ROOT / "Makefile").read_text()


def extras() -> list[str]:
    """All but the GPU's, whose packages are in NVIDIA's image."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [extra for extra in project["optional-dependencies"] if extra != "gpu"]


def without_dependencies() -> list[str]:
    """What the Makefile installs alone."""
    named = re.findall(r"^ALONE := (.*)$|--add test (.*)$", _MAKEFILE, re.MULTILINE)
    return [package for groups in named for group in groups for package in group.split()]


def resolve(version: str, *packages: str) -> list[str]:
    """What pip would install on that Python. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as target:
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--dry-run",
            "--target",
            target,
        ]
        command += ["--ignore-installed", "--python-version", version, "--only-binary=:all:", "-c", "constraints.txt"]
        done = subprocess.run([*command, *packages], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    (line,) = re.findall(r"^Would install (.*)$", done.stdout, re.MULTILINE)
    return str(line).split()


def not_pinned(installed: Sequence[str]) -> list[str]:
    """Of names with versions, as pip prints them, those that constraints.txt lacks."""
    pins = {_key(line.replace("==", "-", 1)) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    return [package for package in installed if _key(package) not in pins]


def _key(package: str) -> str:
    name, _, version = package.rpartition("-")
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"


def main() -> int:
    """The exit status: 1 if a package that would be installed is not pinned, pip's if it finds none."""
    running, failed = sys.version_info[:2], False
    for major, minor in ACCEPTED:
        if (major, minor) == running:
            continue
        version, started = f"{major}.{minor}", time.monotonic()
        try:
            installed = resolve(version, *FIRST, *requirements(extras()))
            installed += resolve(version, "--no-deps", *without_dependencies())
        except subprocess.CalledProcessError as error:
            return error.returncode
        took = time.monotonic() - started
        missing = not_pinned(installed)
        failed |= bool(missing)
        print(f"Python {version}: {len(installed)} packages resolve, in {took:.0f} s; not pinned: {missing or 'none'}")  # noqa: T201
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
