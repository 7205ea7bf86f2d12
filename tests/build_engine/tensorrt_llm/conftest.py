"""A GPU host made of doubles: NVIDIA's programs as executables on a PATH of their own, and a tiny AWQ Mixtral."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import pytest

from build_engine.__main__ import main
from build_engine.checkpoint import Checkpoint, open_checkpoint
from build_engine.tensorrt_llm.commands import Toolchain, convert_command
from tests.tiny_mixtral import TINY, tiny_tensors, write_checkpoint

ROOT = Path(__file__).parents[3]
DOUBLES = ROOT / "tests" / "doubles"
CONVERTER = DOUBLES / "convert_checkpoint.py"
TOOLS = Toolchain(python=sys.executable, converter=CONVERTER, trtllm_build=str(DOUBLES / "trtllm_build.py"))
PROGRAMS = ("trtllm_build", "tritonserver", "mpirun", "nvidia_smi")
H100 = "NVIDIA H100 80GB HBM3:9.0:81559:80994"
A100 = "NVIDIA A100-SXM4-80GB:8.0:81920:81100"
Convert: TypeAlias = Callable[[Checkpoint, str, int], Path]
"""The directory of a checkpoint's conversion for a GPU (as in DOUBLE_GPUS) and a number of ranks; read-only."""
SPLITTABLE = {**TINY, "intermediate_size": 256}
"""Splits among two GPUs without padding: every size is a multiple of twice the group size."""


@dataclass
class GpuHost:
    """A directory with links to the doubles, and the environment in which a build finds them."""

    directory: Path
    checkpoint: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bin.mkdir(parents=True)
        for program in PROGRAMS:
            (self.bin / program.replace("_", "-")).symlink_to(DOUBLES / f"{program}.py")
        (self.directory / "backend").mkdir()
        self.install_tensorrt_llm("1.2.1")
        self.environment = {
            "PATH": os.pathsep.join([str(self.bin), str(Path(sys.executable).parent), os.defpath]),
            "PYTHONPATH": os.pathsep.join([str(self.directory / "packages"), str(ROOT)]),
            "DOUBLE_GPUS": f"{H100},{H100}",
            "DOUBLE_CUDA": "13.1",
        }

    @property
    def bin(self) -> Path:
        return self.directory / "bin"

    @property
    def model_dir(self) -> Path:
        return self.directory / "model_repository" / "tensorrt_llm"

    @property
    def engine_dir(self) -> Path:
        return self.model_dir / "1" / "engine"

    @property
    def work_dir(self) -> Path:
        return self.model_dir / "1" / ".engine.work"

    def install_tensorrt_llm(self, version: str, loader: str = "def postprocess_awq(): ...") -> None:
        packages = self.directory / "packages"
        shutil.rmtree(packages, ignore_errors=True)
        (packages / "tensorrt_llm" / "layers").mkdir(parents=True)
        (packages / "tensorrt_llm" / "__init__.py").touch()
        (packages / "tensorrt_llm" / "layers" / "moe.py").write_text(loader)
        info = packages / f"tensorrt_llm-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tensorrt_llm\nVersion: {version}\n")

    def configure(self, **values: int) -> None:
        """The repository's own config.pbtxt, with other numbers."""
        text = (ROOT / "model_repository" / "tensorrt_llm" / "config.pbtxt").read_text()
        for name, value in {"max_seq_len": 512, **values}.items():
            text, replaced = re.subn(rf'(key: "{name}", value: {{ string_value: )"\d+"', rf'\1"{value}"', text)
            assert replaced == 1
        self.model_dir.mkdir(parents=True, exist_ok=True)
        (self.model_dir / "config.pbtxt").write_text(text)

    def command(self, name: str, *more: str) -> list[str]:
        options = {
            "--model-repository": self.directory / "model_repository",
            "--converter": CONVERTER,
            "--backend": self.directory / "backend",
        }
        return [name, str(self.checkpoint), *(str(part) for option in options.items() for part in option), *more]

    def build(self) -> int:
        """Run `build` in this process; the exit status."""
        return main(self.command("build", "--target", "tensorrt_llm"))

    def published(self) -> Mapping[str, bytes]:
        """Every file of the published engine."""
        return contents(self.engine_dir)


def contents(directory: Path) -> dict[str, bytes]:
    return {str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()}


@pytest.fixture(scope="session")
def splittable_checkpoint(tmp_path_factory: pytest.TempPathFactory, mixtral_tokenizer_dir: Path) -> Path:
    """A tiny AutoAWQ Mixtral that two GPUs can share. Not to be written to."""
    directory = tmp_path_factory.mktemp("splittable") / "mixtral"
    return write_checkpoint(directory, SPLITTABLE, tiny_tensors(SPLITTABLE), mixtral_tokenizer_dir)


@pytest.fixture(scope="session")
def source(splittable_checkpoint: Path) -> Checkpoint:
    return open_checkpoint(splittable_checkpoint)


@pytest.fixture(scope="session")
def convert(tmp_path_factory: pytest.TempPathFactory) -> Convert:
    """Runs the double of the converter, once for each combination."""
    done: dict[tuple[Path, str, int], Path] = {}
    programs = tmp_path_factory.mktemp("bin")
    (programs / "nvidia-smi").symlink_to(DOUBLES / "nvidia_smi.py")

    def run(checkpoint: Checkpoint, gpu: str, tp_size: int) -> Path:
        key = (checkpoint.path, gpu, tp_size)
        if key not in done:
            done[key] = tmp_path_factory.mktemp("converted")
            command = convert_command(TOOLS, checkpoint.path, done[key], tp_size)
            path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.defpath])
            environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "DOUBLE_GPUS": gpu}
            subprocess.run(command, check=True, env=environment)
        return done[key]

    return run


@pytest.fixture
def host(tmp_path: Path, splittable_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> GpuHost:
    """A host with two H100, whose programs this process finds; config.pbtxt asks for one GPU."""
    host = GpuHost(tmp_path / "host", splittable_checkpoint)
    host.configure()
    for name, value in host.environment.items():
        monkeypatch.setenv(name, value)
    return host
