"""Build the GPU engine: preflight, convert, verify, build, smoke test, publish. Whole, or not at all."""

import errno
import os
import shutil
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from build_engine.checkpoint import Checkpoint
from build_engine.errors import CheckpointError, ConversionError, HostError, RepositoryError
from build_engine.model_config import Limits, ServingConfig, check_context, read_serving_config
from build_engine.progress import progress
from build_engine.publish import is_published, make_manifest, only_build, staged

from .check_engine import check_engine
from .commands import VERSION, Toolchain, build_command, convert_command
from .doctor import Finding, Need, examine
from .gpus import is_interleaved
from .host import gpu_memory_mib, probe_host
from .layout import split_problem
from .plan import TOKENS_PER_BLOCK, weight_bytes
from .smoke_test import SmokeTest, smoke
from .subprocess_log import Run, run_tool, show
from .tokenizer_info import write_tokenizer_info
from .verify import verify
from .work_dir import WorkDir

CONVERT, VERIFY, BUILD = "convert", "verify", "build"
WORK_DIR = ".engine.work"
_TIMING_CACHE = "timing.cache"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to build: a checkpoint, for the limits and the number of GPUs in the config.pbtxt of `model_dir`."""

    checkpoint: Checkpoint
    model_dir: Path
    config: ServingConfig
    tp_size: int

    @property
    def limits(self) -> Limits:
        return self.config.limits

    @property
    def engine_dir(self) -> Path:
        return self.model_dir / "1" / "engine"

    @property
    def default_work_dir(self) -> Path:
        """Beside the engine, so that publishing copies no bytes."""
        return self.model_dir / "1" / WORK_DIR

    @property
    def convert_inputs(self) -> dict[str, Any]:
        return {
            "checkpoint": self.checkpoint.fingerprint(),
            "tensor_parallel_size": self.tp_size,
            "tensorrt_llm": VERSION,
        }

    def build_inputs(self, sm: int) -> dict[str, Any]:
        return {**self.convert_inputs, "sm": sm, "limits": self.limits.to_json()}

    def manifest(self, sm: int) -> dict[str, Any]:
        versions = {"tensorrt_llm": VERSION}
        manifest = make_manifest("tensorrt_llm", self.checkpoint, self.limits, versions)
        return {**manifest, "tensor_parallel_size": self.tp_size, "sm": sm}


def open_job(checkpoint: Checkpoint, model_dir: Path) -> Job:
    """Raises RepositoryError for limits that cannot be read, CheckpointError for a model they do not suit."""
    config = read_serving_config(model_dir / "config.pbtxt")
    tp_size = config.tensor_parallel_size
    check_context(config, checkpoint)
    _check_batch(config)
    _check_step(config)
    _check_block(config)
    if problem := split_problem(checkpoint.config, tp_size):
        raise CheckpointError(f"{config.path}: {problem}")
    if checkpoint.config.tie_word_embeddings:
        raise CheckpointError("config.json: tie_word_embeddings is true; accepted: a head of its own")
    _check_no_stray_weights(checkpoint)
    return Job(checkpoint=checkpoint, model_dir=model_dir, config=config, tp_size=tp_size)


def examine_host(job: Job, tools: Toolchain, work_path: Path | None = None) -> list[Finding]:
    """What `doctor` has to say about building this here."""
    path = work_path or job.default_work_dir
    disk_bytes = 2 * job.tp_size * weight_bytes(job.checkpoint.config, job.tp_size)
    return examine(probe_host(tools, path), _need(job, disk_bytes), tools)


def build(job: Job, tools: Toolchain, work_path: Path | None = None) -> bool:
    """Publish the engine. Returns False when this very engine is in place already.

    Raises BuildError; then nothing was published, and the steps that were finished are not done again.
    """
    _make_version_dir(job.engine_dir.parent)
    with only_build(job.engine_dir) as lock:
        work = WorkDir(work_path or job.default_work_dir, show)
        sm = _preflight(job, tools, work)
        if is_published(job.engine_dir, job.manifest(sm)):
            return False
        builder = _Builder(job, tools, work, sm, lock)
        trtllm_checkpoint = builder.convert()
        builder.verify(trtllm_checkpoint)
        engine = builder.build(trtllm_checkpoint)
        builder.publish(engine)
        work.clear()
    return True


def _make_version_dir(directory: Path) -> None:
    """Nothing but the engine lives in it, so a fresh checkout has none."""
    try:
        directory.mkdir(exist_ok=True)
    except OSError as error:
        raise RepositoryError(f"{directory}: cannot be written ({error.strerror}); accepted: a directory") from error


def _preflight(job: Job, tools: Toolchain, work: WorkDir) -> int:
    """The GPUs' architecture. Raises HostError for whatever would stop a later step."""
    per_step = job.tp_size * weight_bytes(job.checkpoint.config, job.tp_size)
    facts = probe_host(tools, work.path)
    sm = facts.gpus[0].sm if facts.gpus else 0
    left = (not work.is_done(CONVERT, job.convert_inputs)) + (not work.is_done(BUILD, job.build_inputs(sm)))
    findings = examine(facts, _need(job, left * per_step), tools)
    for finding in findings:
        if finding.level != "ok":
            work.say(f"preflight: {finding}")
    if failures := [finding for finding in findings if finding.level == "failure"]:
        first = failures[0]
        raise HostError(f"{first.subject}: {first.text}; {first.remedy}")
    return sm


def _need(job: Job, disk_bytes: int) -> Need:
    return Need(
        hf_checkpoint=job.checkpoint.path,
        config=job.checkpoint.config,
        limits=job.limits,
        tp_size=job.tp_size,
        disk_bytes=disk_bytes,
    )


class _Builder:
    """The steps, in order; each says what it does."""

    def __init__(self, job: Job, tools: Toolchain, work: WorkDir, sm: int, lock: int) -> None:
        self._lock = lock
        self._job = job
        self._tools = tools
        self._work = work
        self._sm = sm

    def convert(self) -> Path:
        """The TensorRT-LLM checkpoint, made on this kind of GPU."""
        directory = self._work.step(CONVERT, self._job.convert_inputs, self._run_converter)
        stamp = self._work.stamp(CONVERT)
        assert stamp is not None, "a finished step has a stamp"
        made_on = int(stamp["report"]["sm"])
        if is_interleaved(made_on, expert=False) != is_interleaved(self._sm, expert=False):
            raise ConversionError(
                f"{directory}: converted on a GPU of SM {made_on}, whose attention weights are laid out otherwise than"
                f" this GPU's (SM {self._sm}); remove that directory to convert here"
            )
        return directory

    def verify(self, trtllm_checkpoint: Path) -> None:
        """Every tensor against the source; what does not pass is converted anew next time."""
        try:
            self._work.step(
                VERIFY, {**self._job.convert_inputs, "sm": self._sm}, partial(self._run_verify, trtllm_checkpoint)
            )
        except ConversionError:
            self._work.forget(CONVERT)
            raise

    def build(self, trtllm_checkpoint: Path) -> Path:
        """The engine, checked to be the one that was asked for."""
        inputs = self._job.build_inputs(self._sm)
        return self._work.step(BUILD, inputs, partial(self._run_builder, trtllm_checkpoint))

    def publish(self, engine: Path) -> None:
        """Smoke test and rename: an engine that does not generate never takes its place."""
        checkpoint = self._job.checkpoint
        with staged(self._job.engine_dir, checkpoint, self._job.manifest(self._sm)) as stage:
            for name in ("config.json", *(f"rank{rank}.engine" for rank in range(self._job.tp_size))):
                _link(engine / name, stage / name)
            write_tokenizer_info(checkpoint, stage)
            self._work.say("smoke: starting Triton on the engine")
            answer, alike = smoke(self._smoke_test(stage), self._tools)
            self._work.say(
                f"smoke: {len(answer.token_ids)} tokens, twice alike for {alike}, at {answer.tokens_per_s:.1f} tokens/s"
            )

    def _run_converter(self, output: Path) -> dict[str, Any]:
        command = convert_command(self._tools, self._job.checkpoint.path, output, self._job.tp_size)
        return {"sm": self._sm, "usage": self._run(CONVERT, command, output)}

    def _run_verify(self, trtllm_checkpoint: Path, _: Path) -> dict[str, Any]:
        config = self._job.checkpoint.config
        self._work.say(f"verify: comparing {config.num_hidden_layers} layers with the source")
        with progress("verify", config.num_hidden_layers, " layers") as advance:
            verify(self._job.checkpoint, trtllm_checkpoint, self._job.tp_size, self._sm, advance)
        return {}

    def _run_builder(self, trtllm_checkpoint: Path, output: Path) -> dict[str, Any]:
        job = self._job
        cache = self._work.path / _TIMING_CACHE
        command = build_command(self._tools, trtllm_checkpoint, output, cache, job.limits, job.tp_size)
        usage = self._run(BUILD, command, output)
        check_engine(output, job.checkpoint.config, job.limits, job.tp_size)
        return {"usage": usage}

    def _run(self, what: str, command: list[str], output: Path) -> dict[str, Any]:
        self._work.say(f"{what}: {' '.join(command)}")
        run = Run(
            what=what,
            command=command,
            log=self._work.path / f"{what}.log",
            output=output,
            say=self._work.say,
            gpu_memory_mib=partial(gpu_memory_mib, self._tools),
            keep_open=(self._lock,),
        )
        usage = run_tool(run)
        with run.log.open("a") as log:
            log.write(f"{what}: {usage}\n")
        self._work.say(f"{what}: {usage}")
        return asdict(usage)

    def _smoke_test(self, stage: Path) -> SmokeTest:
        checkpoint = self._job.checkpoint
        return SmokeTest(
            engine_dir=stage,
            config=self._job.config,
            tokenizer_json=checkpoint.path / "tokenizer.json",
            vocab_size=checkpoint.config.vocab_size,
            tp_size=self._job.tp_size,
            directory=self._work.path / "smoke",
            keep_open=(self._lock,),
        )


def _check_batch(config: ServingConfig) -> None:
    """Triton loads no model that prefers a larger batch than it has."""
    most = config.limits.max_batch_size
    for preferred in config.preferred_batch_sizes:
        if preferred > most:
            raise RepositoryError(
                f"{config.path}: preferred_batch_size is {preferred}; accepted: at most {most}, the max_batch_size"
            )


def _check_step(config: ServingConfig) -> None:
    """Outside these the builder takes another max_num_tokens, and says so in a warning.

    Source: `check_max_num_tokens` in _utils.py of TensorRT-LLM 1.2.
    """
    limits = config.limits
    most = limits.max_batch_size * limits.max_seq_len
    if not TOKENS_PER_BLOCK <= limits.max_num_tokens <= most:
        raise RepositoryError(
            f"{config.path}: max_num_tokens is {limits.max_num_tokens}; accepted: {TOKENS_PER_BLOCK} to {most},"
            " which is max_batch_size times max_seq_len"
        )


def _check_block(config: ServingConfig) -> None:
    """The plan reckons with the builder's default too."""
    if (found := config.tokens_per_block) != TOKENS_PER_BLOCK:
        raise RepositoryError(f"{config.path}: tokens_per_block is {found}; accepted: {TOKENS_PER_BLOCK}")


def _check_no_stray_weights(checkpoint: Checkpoint) -> None:
    """NVIDIA's loader reads every *.safetensors of the directory, whatever the index says."""
    known = set(checkpoint.shards.values())
    for file in sorted(checkpoint.path.glob("*.safetensors")):
        if file.name not in known:
            raise CheckpointError(f"{file.name}: not in the index, and the converter would read it; move it away")


def _link(source: Path, target: Path) -> None:
    """The same 25 GB under a second name, or a copy where the work directory is on another disk."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
            raise
        shutil.copyfile(source, target)
