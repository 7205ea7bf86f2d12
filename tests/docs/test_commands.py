"""Commands and options that the pages name exist."""

import contextlib
import io
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
import yaml

from build_engine.__main__ import main as build_engine
from frontend.local.__main__ import main as local
from frontend.settings import Settings
from frontend.terminal_chat.__main__ import main as terminal_chat

from .pages import PAGES, ROOT, name, snippets

MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):.*##", MAKEFILE, re.MULTILINE))
BUILD_COMMANDS = ("inspect", "build", "plan", "limits", "doctor", "selfcheck", "demo-checkpoint", "demo-quality")
FOREIGN = ("docker", "kubectl", "sudo", "python -m vllm", "pip ", "pipx")
"""How commands of other programs begin, whose options are theirs."""


def make_commands(page: Path) -> list[list[str]]:
    """The words behind `make`."""
    return [shlex.split(line)[1:] for line in snippets(page.read_text()) if line == "make" or line.startswith("make ")]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_make_targets_exist(page: Path) -> None:
    named = {word for words in make_commands(page) for word in words if "=" not in word}
    assert named <= TARGETS


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_make_variables_exist(page: Path) -> None:
    named = {word.partition("=")[0] for words in make_commands(page) for word in words if "=" in word}
    assert named <= set(re.findall(r"\$\(([A-Z_]+)\)", MAKEFILE))


def help_of(run: Callable[[], object]) -> str:
    """What a program prints before argparse ends it."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        run()
    return shown.getvalue()


def local_help() -> object:
    """`python -m frontend.local` takes its options from sys.argv."""
    given, sys.argv = sys.argv, ["local", "--help"]
    try:
        return local()
    finally:
        sys.argv = given


@cache
def our_options() -> set[str]:
    """Options of all programs of this repository."""
    texts = [help_of(lambda: Settings.from_args(["--help"], {})), help_of(local_help)]
    texts += [help_of(lambda: terminal_chat(["--help"]))]
    texts += [help_of(lambda command=command: build_engine([command, "--help"])) for command in BUILD_COMMANDS]  # type: ignore[misc]
    texts += [file.read_text() for file in (ROOT / "tests" / "benchmarks").rglob("*.py")]
    return set(re.findall(r"--[a-z][a-z-]+", "\n".join(texts)))


def named_options(page: Path) -> set[str]:
    """Without those of the left column of from-vllm.md, which are vLLM's."""
    text = page.read_text()
    if page.name == "from-vllm.md":
        text = re.sub(r"^\| [^|]* \|", "|", text, flags=re.MULTILINE)
    ours: Sequence[str] = [line for line in snippets(text) if not line.startswith(FOREIGN)]
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z](?![\w-])", "\n".join(ours)))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_options_exist(page: Path) -> None:
    assert named_options(page) <= our_options()


def test_options_are_found() -> None:
    assert {"--cors-origin", "--triton-port", "--work-dir", "--gpu"} <= our_options()
    assert "--api-key-file" in named_options(ROOT / "docs" / "from-vllm.md")


def test_pre_commit_runs_what_make_check_runs() -> None:
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert recipe is not None
    commands = recipe[1].replace("$(CURDIR)/", "$OLDPWD/").replace("$(BIN)", ".venv/bin")
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"
    entries = [shlex.split(hook["entry"]) for hook in repo["hooks"]]
    assert [entry[-1] if entry[0] == "bash" else " ".join(entry) for entry in entries] == [
        line.strip() for line in commands.splitlines()
    ]
