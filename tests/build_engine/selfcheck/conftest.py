"""A GPU host made of doubles, on which the self check runs."""

import shutil
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest

from build_engine.__main__ import main
from tests.build_engine.tensorrt_llm.conftest import H100, ROOT, GpuHost

HERE = Path(__file__).parent
ENTRYPOINT = ROOT / "docker" / "triton-entrypoint.sh"
NVIDIA_PYTHON = ROOT / "tests" / "doubles" / "nvidia_python"
FILES = ("layers/moe.py", "layers/attention.py", "plugin/plugin.py", "builder.py")


@dataclass(frozen=True)
class Outcome:
    """The exit status, the report, and what was shown meanwhile."""

    status: int
    report: str
    shown: str

    def __getitem__(self, subject: str) -> tuple[str, str]:
        """Status and text of the line of a subject."""
        (line,) = [line for line in self.report.splitlines() if line[11:].startswith(f"{subject}  ")]
        return line[:11].strip(), line[11 + len(subject) :].strip()

    def statuses(self) -> Mapping[str, int]:
        """How many lines there are of each status."""
        lines = [line[:11].strip() for line in self.report.splitlines()[:-1]]
        return {status: lines.count(status) for status in sorted(set(lines))}


@dataclass(frozen=True)
class SelfCheckHost:
    """The host of the build's tests, with TensorRT-LLM's files and programs that answer --help."""

    host: GpuHost

    @property
    def work_dir(self) -> Path:
        return self.host.model_dir / "1" / ".engine.selfcheck"

    def install(self, sm: str = "sm_") -> None:
        """NVIDIA's package; its function orders weights for the architecture `sm`, an expression."""
        self.host.install_tensorrt_llm("1.2.1")
        package = self.host.directory / "packages" / "tensorrt_llm"
        for name in FILES:
            (package / name).parent.mkdir(exist_ok=True)
            (package / name).write_text("def postprocess_awq(): ...\n")
        (package / "quantization").mkdir()
        (package / "quantization" / "__init__.py").touch()
        (package / "quantization" / "functional.py").write_text(
            (NVIDIA_PYTHON / "functional.py").read_text().replace("sm=sm_", f"sm={sm}")
        )
        shutil.copy(NVIDIA_PYTHON / "torch.py", package.parent)
        (self.host.directory.parent / "TRITON_VERSION").write_text("2.71.0\n")
        for program in ("tritonserver", "mpirun"):
            (self.host.bin / program).unlink(missing_ok=True)
            (self.host.bin / program).symlink_to(HERE / f"{program}.py")

    def run(self, *options: str, **environment: str) -> Outcome:
        command = [*self.host.command("selfcheck", *options), "--entrypoint", str(ENTRYPOINT)]
        command.remove(str(self.host.checkpoint))
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**self.host.environment, **environment}.items():
                patch.setenv(name, value)
            with redirect_stdout(StringIO()) as report, redirect_stderr(StringIO()) as shown:
                status = main(command)
        return Outcome(status, report.getvalue(), shown.getvalue())


def make_host(directory: Path) -> SelfCheckHost:
    made = SelfCheckHost(GpuHost(directory / "host", directory / "no checkpoint"))
    made.host.configure(max_seq_len=2048)
    made.install()
    return made


@pytest.fixture
def selfcheck_host(tmp_path: Path) -> SelfCheckHost:
    """A host with one H100."""
    made = make_host(tmp_path)
    made.host.environment["DOUBLE_GPUS"] = H100
    return made


@pytest.fixture(scope="module")
def two_gpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[SelfCheckHost, Outcome]:
    """A host with two H100, and what the self check found there."""
    made = make_host(tmp_path_factory.mktemp("two"))
    return made, made.run("--image", "sha256:1")
