"""`make perf` without containers: a real Triton with gRPC for the measurement, and the real perf_analyzer."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.perf_local import triton_with_grpc
from tests.benchmarks.perf_program import find_program

from .conftest import ROOT

LINE = (
    r" +(\d) streams: +([\d.]+) tokens/s, first token after (\d+) ms, then one every ([\d.]+) ms"
    r" \(medians of (\d+) answers\)"
)


def accepts(address: str) -> bool:
    host, port = address.split(":")
    try:
        with socket.create_connection((host, int(port)), timeout=2):
            return True
    except OSError:
        return False


def test_grpc_is_open_for_the_measurement_only(model_repository: Path) -> None:
    with triton_with_grpc(model_repository, "openvino") as address:
        assert address.startswith("127.0.0.1:")
        assert accepts(address)
    assert not accepts(address)


def test_a_line_for_each_number_of_streams(model_repository: Path, tmp_path: Path) -> None:
    try:
        find_program()
    except SystemExit as missing:
        pytest.skip(str(missing))
    command = [sys.executable, "-m", "tests.benchmarks.perf_local", "--model-repository", str(model_repository)]
    command += ["--concurrency", "1:2", "--directory", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    opened, *lines = done.stdout.splitlines()
    assert not accepts(opened.split()[4])
    found = [re.fullmatch(LINE, line) for line in lines]
    assert [line and line[1] for line in found] == ["1", "2"]
    assert all(line and float(line[2]) > 0 and int(line[5]) > 0 for line in found)
