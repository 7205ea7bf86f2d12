"""Build the GPU engine: open the build, convert, verify, build, smoke test, publish. Published whole or not at all."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from build_engine.chat_template import check_chat_template
from build_engine.checkpoint import Checkpoint
from build_engine.errors import ConversionError, RepositoryError
from build_engine.hashes import Hashes, remembered_hashes
from build_engine.manifest import MANIFEST, USAGE, has_same_engine, kept_fields
from build_engine.model_config import read_serving_config
from build_engine.progress import progress
from build_engine.publish import (
    ENGINE,
    Outcome,
    find_published,
    link_or_copy,
    only_engine_build,
    staged_engine,
)

from .check_engine import check_engine
from .commands import Toolchain, build_command, convert_command
from .gpu_build import BUILD, CONVERT, VERIFY, GpuBuild
from .gpus import is_interleaved
from .host import gpu_memory_mib
from .preflight import architecture, check_host, check_inputs
from .smoke_test.answers import is_known
from .smoke_test.run import SmokeTest, smoke
from .smoke_test.triton import Serving
from .subprocess_log import Run, run_tool, show
from .tokenizer_info import XGRAMMAR_TOKENIZER_INFO, write_tokenizer_info
from .verify import verify
from .work_dir import WorkDir

WORK_DIR = ".engine.work"
"""The default, beside the engine, so that publishing copies no bytes."""
_TIMING_CACHE = "timing.cache"


def open_build(checkpoint: Checkpoint, model_dir: Path, tools: Toolchain, work_dir: Path | None = None) -> GpuBuild:
    """The build of `checkpoint` into `model_dir`, a Triton model with its config.pbtxt.

    Raises RepositoryError for limits that cannot be read, CheckpointError for a model they do not suit.
    """
    config = read_serving_config(model_dir / "config.pbtxt")
    check_inputs(config, checkpoint)
    return GpuBuild(
        checkpoint=checkpoint,
        model_dir=model_dir,
        config=config,
        tp_size=config.tensor_parallel_size,
        tools=tools,
        work_dir=work_dir or (model_dir / ENGINE).with_name(WORK_DIR),
    )


def run_build(build: GpuBuild) -> Outcome:
    """Build and publish the engine, unless this very engine is in place already.

    Raises BuildError; then nothing was published, and the steps that were finished are not done again.
    """
    _make_version_dir(build.engine_dir.parent)
    with only_engine_build(build.engine_dir) as lock, remembered_hashes(build.engine_dir) as hashes:
        work = WorkDir(build.work_dir, show)
        if (build.engine_dir / MANIFEST).exists() and (outcome := _refresh(build, work, hashes, lock)):
            return outcome
        check_chat_template(build.checkpoint.path, build.checkpoint.given_template)
        sm = check_host(build, work)
        manifest = build.manifest(sm, hashes)
        steps = _Steps(build, work, sm, lock)
        trtllm_checkpoint = steps.convert()
        steps.verify(trtllm_checkpoint)
        engine = steps.build_engine(trtllm_checkpoint)
        steps.publish(engine, manifest, hashes)
        work.clear()
    return Outcome.BUILT


def _refresh(build: GpuBuild, work: WorkDir, hashes: Hashes, lock: int) -> Outcome | None:
    """Publish the engine in place with what is new of tokenizer and template; None if another engine is to be built.

    That needs no GPU, but for new grammars: they are in what the smoke test tries.
    """
    sm = architecture(build)
    manifest = build.manifest(sm, hashes)
    if found := find_published(build.engine_dir, manifest, hashes):
        return found
    if not has_same_engine(build.engine_dir, manifest, build.engine_files, hashes):
        return None
    check_chat_template(build.checkpoint.path, build.checkpoint.given_template)
    _Steps(build, work, sm, lock).refresh(manifest, hashes)
    return Outcome.REFRESHED


def _make_version_dir(directory: Path) -> None:
    """Only the engine lies in it, so a fresh checkout does not have it: Git keeps no empty directories."""
    try:
        directory.mkdir(exist_ok=True)
    except OSError as error:
        raise RepositoryError(f"{directory}: cannot be written ({error.strerror}); accepted: a directory") from error


class _Steps:
    """The steps of one build, in order. Each logs what it does."""

    def __init__(self, build: GpuBuild, work: WorkDir, sm: int, lock: int) -> None:
        self._build = build
        self._work = work
        self._sm = sm
        self._lock = lock

    def convert(self) -> Path:
        """The TensorRT-LLM checkpoint, made on this kind of GPU."""
        directory = self._work.step(CONVERT, self._build.convert_inputs, self._run_converter)
        made_on = int(self._report(CONVERT)["sm"])
        if is_interleaved(made_on, expert=False) != is_interleaved(self._sm, expert=False):
            raise ConversionError(
                f"{directory}: converted on a GPU of SM {made_on}, whose attention weights are laid out otherwise than"
                f" this GPU's (SM {self._sm}); remove that directory to convert here"
            )
        return directory

    def verify(self, trtllm_checkpoint: Path) -> None:
        """Compare every tensor with the source. After a difference, the next build converts again."""
        inputs = {**self._build.convert_inputs, "sm": self._sm}
        try:
            self._work.step(VERIFY, inputs, partial(self._run_verify, trtllm_checkpoint))
        except ConversionError:
            self._work.forget(CONVERT)
            raise

    def build_engine(self, trtllm_checkpoint: Path) -> Path:
        """The engine's files, checked to be for the limits that were asked for."""
        inputs = self._build.build_inputs(self._sm)
        return self._work.step(BUILD, inputs, partial(self._run_builder, trtllm_checkpoint))

    def publish(self, engine: Path, manifest: dict[str, Any], hashes: Hashes) -> None:
        """Smoke test and rename: an engine that does not generate is never published."""
        checkpoint = self._build.checkpoint
        usage = {step: self._report(step)["usage"] for step in (CONVERT, BUILD)}
        whole = {**manifest, USAGE: usage}
        with staged_engine(self._build.engine_dir, checkpoint, whole, hashes) as stage:
            for name in self._build.engine_files:
                link_or_copy(engine / name, stage / name)
            write_tokenizer_info(checkpoint, stage)
            smoke(self._smoke_test(stage), self._build.tools, self._work.say)

    def refresh(self, manifest: dict[str, Any], hashes: Hashes) -> None:
        """Publish the engine in place once more, with the tokenizer files and the template as they are now."""
        build = self._build
        whole = {**manifest, **kept_fields(build.engine_dir)}
        with staged_engine(build.engine_dir, build.checkpoint, whole, hashes) as stage:
            for name in build.engine_files:
                link_or_copy(build.engine_dir / name, stage / name)
            write_tokenizer_info(build.checkpoint, stage)
            if not _is_equal(XGRAMMAR_TOKENIZER_INFO, build.engine_dir, stage):
                check_host(build, self._work, steps=())
                smoke(self._smoke_test(stage), build.tools, self._work.say)

    def _report(self, step: str) -> dict[str, Any]:
        """The facts that a finished step left, in this build or in an earlier one."""
        stamp = self._work.stamp(step)
        assert stamp is not None, "a finished step has a stamp"
        report: dict[str, Any] = stamp["report"]
        return report

    def _run_converter(self, output: Path) -> dict[str, Any]:
        build = self._build
        command = convert_command(build.tools, build.checkpoint.path, output, build.tp_size)
        return {"sm": self._sm, "usage": self._run(CONVERT, command, output)}

    def _run_verify(self, trtllm_checkpoint: Path, _: Path) -> dict[str, Any]:
        checkpoint = self._build.checkpoint
        num_layers = checkpoint.config.num_hidden_layers
        self._work.say(f"verify: comparing {num_layers} layers with the source")
        with progress("verify", num_layers, " layers") as advance:
            warnings = verify(checkpoint, trtllm_checkpoint, self._build.tp_size, self._sm, advance)
        self._warn(VERIFY, warnings)
        return {}

    def _run_builder(self, trtllm_checkpoint: Path, output: Path) -> dict[str, Any]:
        build = self._build
        cache = self._work.path / _TIMING_CACHE
        command = build_command(build.tools, trtllm_checkpoint, output, cache, build.limits, build.tp_size)
        usage = self._run(BUILD, command, output)
        self._warn(BUILD, check_engine(output, build.checkpoint.config, build.limits, build.tp_size))
        return {"usage": usage}

    def _warn(self, what: str, warnings: list[str]) -> None:
        for warning in warnings:
            self._work.say(f"{what}: warning: {warning}")

    def _run(self, what: str, command: list[str], output: Path) -> dict[str, Any]:
        self._work.say(f"{what}: {' '.join(command)}")
        run = Run(
            what=what,
            command=command,
            log=self._work.path / f"{what}.log",
            output=output,
            say=self._work.say,
            gpu_memory_mib=partial(gpu_memory_mib, self._build.tools),
            keep_open=(self._lock,),
        )
        usage = run_tool(run)
        with run.log.open("a") as log:
            log.write(f"{what}: {usage}\n")
        self._work.say(f"{what}: {usage}")
        return asdict(usage)

    def _smoke_test(self, stage: Path) -> SmokeTest:
        serving = Serving(
            engine_dir=stage,
            config=self._build.config,
            tp_size=self._build.tp_size,
            directory=self._work.path / "smoke",
            keep_open=(self._lock,),
        )
        checkpoint = self._build.checkpoint
        return SmokeTest(serving=serving, checkpoint=checkpoint, judged=is_known(checkpoint))


def _is_equal(name: str, one: Path, other: Path) -> bool:
    """Whether two directories have a file of that name with the same content."""
    return (one / name).exists() and (one / name).read_bytes() == (other / name).read_bytes()
