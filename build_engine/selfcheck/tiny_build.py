"""The tiny Mixtral through the whole build, into a model repository of its own: the product's steps, in order."""

from dataclasses import dataclass
from pathlib import Path

from build_engine.checkpoint import Checkpoint
from build_engine.errors import ConversionError
from build_engine.model_config import ServingConfig, read_serving_config
from build_engine.publish import ENGINE
from build_engine.tensorrt_llm.build import open_build, run_build
from build_engine.tensorrt_llm.commands import Toolchain
from build_engine.tensorrt_llm.gpu_build import BUILD, CONVERT, VERIFY
from build_engine.tensorrt_llm.tokenizer_info import XGRAMMAR_TOKENIZER_INFO
from build_engine.tensorrt_llm.work_dir import WorkDir

from .report import NotKnown

MODEL = "tensorrt_llm"
STEPS = (CONVERT, VERIFY, BUILD, "publish")
_KV_TOKENS = 2**18
"""Tokens of KV cache. Nine tenths of a GPU's memory would be millions of blocks of this small model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyBuild:
    """A build of the tiny Mixtral for `tp_size` GPUs; everything is written below `directory`."""

    checkpoint: Checkpoint
    config: ServingConfig
    tools: Toolchain
    tp_size: int
    directory: Path

    @property
    def repository(self) -> Path:
        """The model repository that the engine is published in."""
        return self.directory / "model_repository"

    @property
    def engine_dir(self) -> Path:
        """Where the engine is published."""
        return self.repository / MODEL / ENGINE

    @property
    def steps_dir(self) -> Path:
        """Where the steps write, and leave their logs."""
        return self.directory / "steps"

    def write_repository(self, directory: Path, kv_tokens: int = _KV_TOKENS) -> ServingConfig:
        """A repository in `directory` with the product's config.pbtxt, for this build's engine."""
        parameters = {
            "gpt_model_path": str(self.engine_dir),
            "tokenizer_dir": str(self.engine_dir),
            "xgrammar_tokenizer_info_path": str(self.engine_dir / XGRAMMAR_TOKENIZER_INFO),
            "tensor_parallel_size": str(self.tp_size),
            "max_tokens_in_paged_kv_cache": str(kv_tokens),
        }
        model = directory / MODEL
        (model / "1").mkdir(parents=True, exist_ok=True)
        (model / "config.pbtxt").write_text(self.config.text_with(parameters))
        return read_serving_config(model / "config.pbtxt")


class BuildSteps:
    """Runs the build, and then has the outcome of each of its steps."""

    def __init__(self, tiny: TinyBuild) -> None:
        self._tiny = tiny
        self._failed: tuple[str, Exception] | None = None

    def run(self) -> None:
        """Build and publish; what stops the build is kept for its step."""
        tiny = self._tiny
        try:
            tiny.write_repository(tiny.repository)
            run_build(open_build(tiny.checkpoint, tiny.repository / MODEL, tiny.tools, tiny.steps_dir))
        except Exception as error:  # it becomes a line of the report, and the other checks go on
            self._failed = self._failed_step(error), error

    def outcome(self, step: str) -> str:
        """What a step did. Raises its error, or NotKnown if an earlier one failed."""
        if self._failed is not None:
            failed_step, error = self._failed
            if step == failed_step:
                raise error
            if STEPS.index(step) > STEPS.index(failed_step):
                raise NotKnown(f"{failed_step} failed")
        return self._found(step)

    def _failed_step(self, error: Exception) -> str:
        """The first that left no stamp. A difference that `verify` finds also takes the stamp of `convert`."""
        if isinstance(error, ConversionError):
            return VERIFY
        stamps = WorkDir(self._tiny.steps_dir, lambda line: None)
        return next((step for step in STEPS if stamps.stamp(step) is None), STEPS[-1])

    def _found(self, step: str) -> str:
        """What a step took by its log, where it has one."""
        log = self._tiny.steps_dir / f"{step}.log"
        if log.is_file():
            return log.read_text(errors="replace").splitlines()[-1].removeprefix(f"{step}: ")
        if step == VERIFY:
            return "every weight of every rank is the source's"
        return "Triton answered with the engine, and it is in its place; all steps together"
