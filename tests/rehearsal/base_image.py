"""A base image in place of python:*-slim, for machines that reach Debian's packages and PyPI, but no image registry."""

import re
import shutil
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.rehearsal.checkout import Checkout

NAME = "mixtral-rehearsal-base"
PACKAGES = "python3,python3-venv,python3-pip,libpython3.11,ca-certificates,libgomp1"
"""What python:3.12-slim-bookworm has of what the images need, and libgomp for OpenVINO."""
SUITE = "bookworm"
_CA_BUNDLE = "etc/ssl/certs/ca-certificates.crt"
_PIP_OPTIONS = {"index-url", "extra-index-url", "trusted-host", "proxy", "timeout"}


def make_base_image(checkout: Checkout) -> str:
    """Debian with Python, and with this machine's certificates and package index. Kept for the next rehearsal."""
    if checkout.docker("image", "inspect", NAME, check=False).returncode == 0:
        return NAME
    with tempfile.TemporaryDirectory(prefix="rehearsal-base-") as directory:
        root = Path(directory) / "root"
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(root), *_mirror()]
        checkout.run("debootstrap", command)
        _prepare(root)
        archive = Path(directory) / "root.tar"
        subprocess.run(["tar", "--create", "--file", archive, "--directory", root, "."], check=True)
        checkout.docker("import", str(archive), NAME)
    return NAME


def _prepare(root: Path) -> None:
    (root / "usr/bin/python").symlink_to("python3")
    # pip installs into Debian's Python as into the one of python:*-slim.
    (root / "usr/lib/python3.11/EXTERNALLY-MANAGED").unlink(missing_ok=True)
    bundle = ssl.get_default_verify_paths().cafile
    if bundle is not None:
        shutil.copyfile(bundle, root / _CA_BUNDLE)
    options = "".join(f"{name} = {value}\n" for name, value in _pip_options().items())
    (root / "etc/pip.conf").write_text(f"[global]\ncert = /{_CA_BUNDLE}\n{options}")
    for archive in (root / "var/cache/apt/archives").glob("*.deb"):
        archive.unlink()


def _pip_options() -> dict[str, str]:
    """How pip on this machine reaches a package index. A file: is not in the image."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    options: dict[str, str] = {}
    for name, value in re.findall(r"^[\w:]*\.([\w-]+)='(.*)'$", shown, re.MULTILINE):
        reached = [word for word in value.split() if not word.startswith("file:")]
        if name in _PIP_OPTIONS and reached:
            options[name] = " ".join(reached)
    return options


def _mirror() -> list[str]:
    """The mirror of Debian that this machine uses, if it is one itself; else debootstrap's default."""
    files = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    sources = "\n".join(file.read_text() for file in files if file.is_file() and file.suffix in {".list", ".sources"})
    return re.findall(r"^[^#\n]*?(https?://\S+/debian/?)(?=\s|$)", sources, re.MULTILINE)[:1]
