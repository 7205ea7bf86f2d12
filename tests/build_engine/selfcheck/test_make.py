"""`make selfcheck` and `make engine`, with a stand-in for Docker that records its arguments."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.build_engine.tensorrt_llm.conftest import ROOT

DOCKER = """#!/bin/sh
echo "$*" >> {calls}
case "$*" in
    *" config --images engine") echo mixtral-triton ;;
    "image inspect "*) {inspect} ;;
    *selfcheck*) exit {status} ;;
esac
"""
IN_IMAGE = "compose -f docker/compose.yaml run --rm --user"


def make(directory: Path, *arguments: str, inspect: str = "echo sha256:1", status: int = 0) -> tuple[int, list[str]]:
    """The exit status, and Docker's arguments in the calls that run something."""
    (directory / "docker").write_text(DOCKER.format(calls=directory / "calls", inspect=inspect, status=status))
    (directory / "docker").chmod(0o755)
    (directory / "config.json").write_text("{}")
    environment = {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["make", *arguments, f"CHECKPOINT={directory}"], cwd=ROOT, env=environment, capture_output=True, check=False
    )
    calls = (directory / "calls").read_text().splitlines()
    return done.returncode, [call for call in calls if call.startswith(IN_IMAGE)]


def test_the_self_check_runs_in_the_service_that_builds(tmp_path: Path) -> None:
    status, (call,) = make(tmp_path, "selfcheck")
    assert status == 0
    assert call.endswith(" engine selfcheck --image sha256:1")


@pytest.mark.parametrize("target", ["selfcheck", "engine"])
def test_a_failure_fails_the_target_and_nothing_is_built(tmp_path: Path, target: str) -> None:
    status, calls = make(tmp_path, target, status=2)
    assert status != 0
    assert [call.split(" engine ")[1].split()[0] for call in calls] == ["selfcheck"]


def test_an_engine_is_built_after_the_self_check_of_its_image(tmp_path: Path) -> None:
    status, (check, build) = make(tmp_path, "engine")
    assert status == 0
    assert check.endswith(" engine selfcheck --once --image sha256:1")
    assert " engine build --target tensorrt_llm " in build


def test_the_self_check_can_be_skipped(tmp_path: Path) -> None:
    status, (build,) = make(tmp_path, "engine", "SELFCHECK=no")
    assert status == 0
    assert " engine build " in build


def test_without_the_image_an_engine_is_not_built(tmp_path: Path) -> None:
    status, calls = make(tmp_path, "engine", inspect="echo no such image >&2; exit 1")
    assert status != 0
    assert calls == []


def test_without_the_image_the_self_check_runs_on_the_machine() -> None:
    recipe = subprocess.run(
        ["make", "--dry-run", "selfcheck"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    here = recipe.partition("else")[2]
    assert "make images" in here
    assert "/python -m build_engine selfcheck" in here
