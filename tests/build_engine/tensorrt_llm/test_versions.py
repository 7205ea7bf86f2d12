"""Versions of a GPU engine: built while another one serves, kept, and served again."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from build_engine.__main__ import main
from build_engine.tensorrt_llm import preflight
from tests.build_engine.tensorrt_llm.conftest import H100, GpuHost, contents
from tests.build_engine.tensorrt_llm.test_build import FULL_H100


class Disk(NamedTuple):
    """What `shutil.disk_usage` returns."""

    total: int
    used: int
    free: int


def rollback(host: GpuHost) -> list[str]:
    repository = host.directory / "model_repository"
    return ["rollback", "--target", "tensorrt_llm", "--model-repository", str(repository)]


@pytest.fixture
def two_versions(host: GpuHost) -> GpuHost:
    """A host whose engine for 512 tokens was replaced by one for 256."""
    assert host.build() == 0
    host.configure(max_seq_len=256)
    assert host.build() == 0
    return host


def test_a_rollback_wants_the_limits_of_the_engine_and_needs_no_gpu(
    two_versions: GpuHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host = two_versions
    monkeypatch.setenv("DOUBLE_GPUS", "")
    kept, new = host.engine_dir.with_name("engines") / "1", host.published()
    built = json.loads(new["manifest.json"])["built"]
    assert built.keys() == {"at", "by"}
    assert built["by"].startswith("mixtral-triton ")
    assert main(rollback(host)) == 2
    assert f"max_seq_len is 256, and {kept} was built for 512; accepted: " in capsys.readouterr().err
    host.configure(tensor_parallel_size=2)
    assert main(rollback(host)) == 2
    assert f"tensor_parallel_size is 2, and {kept} was built for 1; accepted: " in capsys.readouterr().err
    host.configure()
    assert main(rollback(host)) == 0
    assert f"{host.engine_dir} is engines/1 now, of {host.checkpoint} built 20" in capsys.readouterr().out
    assert host.published() == contents(kept) != new


def test_a_build_for_the_limits_of_the_kept_engine_takes_it(
    two_versions: GpuHost, capsys: pytest.CaptureFixture[str]
) -> None:
    two_versions.configure()
    capsys.readouterr()
    assert two_versions.build() == 0
    printed = capsys.readouterr()
    assert printed.out == f"published {two_versions.engine_dir} again: the engine from before is this checkpoint's\n"
    assert printed.err == ""


def test_a_build_on_another_gpu_while_the_engine_serves(
    host: GpuHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOUBLE_GPUS", f"{FULL_H100},{H100}")
    assert host.build() == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("build_engine: GPU 0 memory: 0.9 of 79.6 GiB free; ")
    assert "stop what else uses the GPU, as a server does (make down), or take another GPU" in said
    assert "CUDA_VISIBLE_DEVICES=1 make engine" in said
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert host.build() == 0
    usage = json.loads(host.published()["manifest.json"])["usage"]
    assert usage["build"]["gpu_mib"] == 81559 - 80994  # of that GPU alone


def test_a_disk_without_room_names_what_could_go(
    two_versions: GpuHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    two_versions.configure(max_seq_len=128)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(2**40, 2**40, 1000))
    capsys.readouterr()
    assert two_versions.build() == 2
    said = capsys.readouterr().err
    kept = two_versions.engine_dir.with_name("engines") / "1"
    assert f", or remove {kept}, which is kept for a rollback" in said
    assert "convert" not in said.replace("converting", "")


def test_a_work_directory_on_another_disk_needs_room_beside_the_engine_too(
    host: GpuHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """There the engine is copied; on one disk it gets a second name."""
    elsewhere = tmp_path / "elsewhere"

    def disk_usage(path: Any) -> Disk:
        is_small = Path(path).is_relative_to(host.model_dir)
        return Disk(2**40, 0, 1000 if is_small else 2**40)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    monkeypatch.setattr(preflight, "_device", lambda path: int(Path(path).is_relative_to(host.model_dir)))
    command = host.command("build", "--target", "tensorrt_llm", "--work-dir", str(elsewhere))
    assert main(command) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"build_engine: {host.engine_dir.parent}: 0 MB free, and a new engine takes ")
    assert not (elsewhere / "convert").exists()
