"""`inspect` prints what a checkpoint is, how large it is and what would be built, and changes nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from build_engine.checkpoint import Checkpoint
from tests.build_engine.workplace import CheckpointDir, start

WITHOUT_OPENVINO = """
import sys
sys.modules["openvino"] = None
from build_engine.__main__ import main
sys.exit(main(sys.argv[1:]))
"""

Succeed = Callable[[list[str]], str]


def test_inspect_says_what_it_is_its_sizes_and_what_would_be_built(succeed: Succeed, checkpoint: CheckpointDir) -> None:
    file_bytes = sum(file.stat().st_size for file in checkpoint.path.glob("*.safetensors"))
    assert succeed(["inspect", str(checkpoint.path)]).splitlines() == [
        f"checkpoint    {checkpoint.path}",
        "model         Mixtral, 2 layers, 4 experts of which 2 per token, hidden size 128, vocabulary 320",
        "attention     4 query heads on 2 key-value heads of 32, 8192 positions",
        "quantization  AutoAWQ gemm, 4 bits, groups of 64, zero points",
        f"weights       {file_bytes / 2**20:.1f} MiB in 2 file(s), 105 tensors",
        "KV cache      0.5 KiB per token in float16",
        "would build   openvino: 0.5 MiB, 4-bit weights as they are, zero points kept, sparse experts",
    ]


def test_inspect_reads_every_value_that_can_be_wrong_and_no_other(
    succeed: Succeed, checkpoint: CheckpointDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 24 GB, packed weights are 23, and every value of theirs is valid."""
    read: list[str] = []
    tensor = Checkpoint.tensor

    def watched(opened: Checkpoint, name: str) -> NDArray[Any]:
        read.append(name)
        return tensor(opened, name)

    monkeypatch.setattr(Checkpoint, "tensor", watched)
    succeed(["inspect", str(checkpoint.path)])
    assert len(read) == 3 + 2 * (3 + 4 + 4 * 3)
    assert {name.rsplit(".", 1)[1] for name in read} == {"weight", "scales"}


def test_inspect_writes_nothing(succeed: Succeed, checkpoint: CheckpointDir, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    succeed(["inspect", str(checkpoint.path)])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_inspect_needs_no_openvino(checkpoint: CheckpointDir) -> None:
    """A host that builds for GPUs does not have it."""
    process = start(["-c", WITHOUT_OPENVINO, "inspect", str(checkpoint.path)])
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "would build   openvino" in out


@pytest.mark.parametrize("arguments", [[], ["build"], ["build", "--target", "tpu", "x"]], ids=" ".join)
def test_a_command_that_is_not_complete_ends_with_status_2_and_the_usage(arguments: list[str]) -> None:
    process = start(["-m", "build_engine", *arguments])
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("usage: python -m build_engine")


def test_a_checkpoint_is_named_in_full(
    succeed: Succeed, checkpoint: CheckpointDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkpoint.path.parent)
    assert f"checkpoint    {checkpoint.path}\n" in succeed(["inspect", checkpoint.path.name])
