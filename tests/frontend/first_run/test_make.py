"""What `make` does before there are packages."""

import os
import re
import socket
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3]


def make(*arguments: str, dry: bool = True) -> "subprocess.CompletedProcess[str]":
    command = ["make", *(["--dry-run"] if dry else []), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def test_a_checkpoint_with_a_space_in_its_path_is_one_argument() -> None:
    done = make("run", "CHECKPOINT=/opt/my models/mixtral", dry=False)
    assert "first_run: CHECKPOINT: /opt/my models/mixtral has no config.json; name the directory" in done.stderr
    recipe = make("run", "CHECKPOINT=/opt/my models/mixtral").stdout
    assert re.search(r'build_engine build --target openvino +"\$CHECKPOINT"', recipe)
    assert "demo-checkpoint" not in recipe


def test_the_machine_is_checked_before_anything_else_and_not_with_checks_no() -> None:
    first, *_ = [line for line in make("run", "OPTIONS=--port 9000").stdout.splitlines() if "first_run" in line]
    assert first.endswith('first_run check "$CHECKPOINT" --port 9000')
    assert 'test "no" = no ||' in make("run", "CHECKS=no").stdout


def test_only_run_numbers_its_steps() -> None:
    assert "[4/4] Triton and the frontend" in make("run").stdout
    assert "/4]" not in make("cpu-engine").stdout


def test_a_busy_port_ends_make_run_before_its_first_step() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        done = make("run", f"OPTIONS=--port {busy.getsockname()[1]}", dry=False)
    assert done.returncode == 2
    first, *others = done.stderr.splitlines()
    assert first.startswith("first_run: port: cannot listen on 127.0.0.1:")
    assert "first_run: CHECKS=no goes on all the same: make CHECKS=no ..." in others
    assert "[1/4]" not in done.stderr


def test_an_index_out_of_reach_ends_make_run_before_its_first_step(tmp_path: Path) -> None:
    """In a clone of its own, which has no packages yet."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, clone], check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = {**os.environ, "PIP_INDEX_URL": "http://127.0.0.1:1/simple"}
    command = ["make", "run", f"OPTIONS=--port {port}"]
    done = subprocess.run(command, cwd=clone, env=variables, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("first_run: network: the package index http://127.0.0.1:1/simple does not answer")
    assert not (clone / ".venv").exists()
