"""The two commands: `check` before anything of `make run`, `install` for what goes into .venv."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from frontend.local.libpython import LibpythonMissing, libpython_dir

from . import disk, memory, needs, network, ports
from .install import InstallFailed, install


def run(argv: Sequence[str]) -> int:
    """The exit status; problems and failures are on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m frontend.first_run", description="What the Makefile does before all else."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    python = commands.add_parser("python", help="whether this Python can run everything")
    python.set_defaults(run=lambda _: _report(list(_libpython())))

    check = commands.add_parser("check", help="whether this machine can do `make run`")
    check.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    check.add_argument("options", nargs=argparse.REMAINDER, help="those of python -m frontend.local")
    check.set_defaults(run=lambda arguments: _check(arguments.checkpoint, arguments.options))

    packages = commands.add_parser("install", help="install this checkout's packages into .venv")
    packages.add_argument("extras", help="of pyproject.toml, with commas between them")
    packages.add_argument("alone", nargs="*", help="packages to install without their dependencies")
    packages.add_argument("--add", action="store_true", help="to what is there; otherwise .venv is made anew")
    packages.add_argument("--unchecked", action="store_true", help="without a look at disk and network")
    packages.set_defaults(run=_install)

    arguments = parser.parse_args(argv)
    return int(arguments.run(arguments))


def _check(checkpoint: Path, options: Sequence[str]) -> int:
    found = needs.needs(checkpoint)
    return _report_all(
        [
            *_libpython(),
            *ports.problems(options),
            *needs.problems(checkpoint),
            *memory.problems(found.memory_bytes),
            *disk.problems(found.disk_bytes, packages=found.packages),
            *(network.problems(os.environ) if found.packages else ()),
        ]
    )


def _install(arguments: argparse.Namespace) -> int:
    if not arguments.unchecked and (problems := _for_packages()):
        return _report_all(problems)
    try:
        install(arguments.extras, arguments.alone, add=arguments.add)
    except InstallFailed as failure:
        return _report([str(failure), *_for_packages()])  # what it failed of may have come after the check
    return 0


def _for_packages() -> list[str]:
    return [*disk.problems(needs.ENVIRONMENT_BYTES, packages=True), *network.problems(os.environ)]


def _libpython() -> Iterator[str]:
    try:
        libpython_dir()
    except LibpythonMissing as missing:
        yield str(missing)


def _report(problems: Sequence[str]) -> int:
    sys.stderr.writelines(f"first_run: {problem}\n" for problem in problems)
    return 1 if problems else 0


def _report_all(problems: Sequence[str]) -> int:
    """With the way on for a machine that the checks judge wrongly."""
    return _report([*problems, "CHECKS=no goes on all the same: make CHECKS=no ..."] if problems else [])
