"""A copy of this checkout in which make and docker compose run, so that engines and settings of the original stay."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = "mixtral-rehearsal"
"""Containers, networks, volumes and images of the rehearsal have this prefix."""
_FROM_MAKE = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "PROFILE", "CHECKPOINT", "COMPOSE_PROFILES")
"""Variables of the `make` that started the rehearsal, which another `make` would take over."""


@dataclass
class Checkout:
    """The copy in `directory`; `variables` are added to the environment of all commands, in place of docker/.env."""

    directory: Path
    log: Path
    variables: dict[str, str] = field(default_factory=dict)

    def make(self, *arguments: str, **variables: str) -> str:
        """Run make, and return its output. The test fails if make does."""
        return self.run(" ".join(["make", *arguments]), ["make", *arguments], variables)

    def docker(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        done = self._done(["docker", *arguments], {})
        if check and done.returncode:
            pytest.fail(f"docker {' '.join(arguments)}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done

    def run(self, step: str, command: list[str], variables: Mapping[str, str] | None = None) -> str:
        """Run a command that takes long: a line says how long it took, its output goes into the log."""
        started = time.monotonic()
        done = self._done(command, variables or {})
        say(f"{step}: {time.monotonic() - started:.0f} s")
        if done.returncode:
            pytest.fail(f"{step} failed with {done.returncode}:\n{(done.stdout + done.stderr)[-6000:]}")
        return done.stdout + done.stderr

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start make without waiting for it."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                ["make", *arguments], cwd=self.directory, env=self._environment({}), stdout=log, stderr=log
            )

    def _done(self, command: list[str], variables: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=self._environment(variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        with self.log.open("a") as log:
            log.write(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}")
        return done

    def _environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name not in _FROM_MAKE}
        return {**inherited, **self.variables, **variables}


def copy_checkout(directory: Path) -> Path:
    """Copy the files that git knows or would add. `make` finds an environment there, with this Python."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    shutil.rmtree(directory, ignore_errors=True)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, directory / name)
    python = directory / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (directory / ".venv" / ".installed").touch()
    return directory


def say(line: str) -> None:
    sys.stderr.write(f"\nrehearsal: {line}")
    sys.stderr.flush()
