"""Check the config, the checkpoint and the host for what would stop a GPU build, before any step costs time."""

from collections.abc import Sequence
from pathlib import Path

from build_engine.checkpoint import Checkpoint
from build_engine.disk import check_room, other_remedy
from build_engine.errors import CheckpointError, HostError, RepositoryError
from build_engine.model_config import ServingConfig, check_context

from .doctor import Finding, Need, examine
from .gpu_build import BUILD, CONVERT, GpuBuild
from .host import HostFacts, probe_host
from .layout import split_problem
from .memory import TOKENS_PER_BLOCK, build_host_bytes, convert_host_bytes, weight_bytes
from .work_dir import WorkDir


def check_inputs(config: ServingConfig, checkpoint: Checkpoint) -> None:
    """Raises RepositoryError for limits that do not suit the model, CheckpointError for what is not built for GPUs."""
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


def examine_host(build: GpuBuild) -> list[Finding]:
    """The findings of `doctor` for a build that starts from nothing."""
    return examine(probe_host(build.tools, build.work_dir), _need(build, (CONVERT, BUILD)), build.tools)


def architecture(build: GpuBuild) -> int:
    """The architecture of the GPUs of this host; 0 without any."""
    return _architecture(probe_host(build.tools, build.work_dir))


def _architecture(facts: HostFacts) -> int:
    return facts.gpus[0].sm if facts.gpus else 0


def check_host(build: GpuBuild, work: WorkDir, steps: Sequence[str] = (CONVERT, BUILD)) -> int:
    """Check the host for what is left to do of `steps`, and to load the engine; returns the architecture of its GPUs.

    Raises HostError for the first finding that would stop one of them, RepositoryError where a copy from another disk
    has no room.
    """
    facts = probe_host(build.tools, build.work_dir)
    sm = _architecture(facts)
    inputs = {CONVERT: build.convert_inputs, BUILD: build.build_inputs(sm)}
    left = tuple(step for step in steps if not work.is_done(step, inputs[step]))
    findings = examine(facts, _need(build, left), build.tools)
    for finding in findings:
        if finding.level != "ok":
            work.say(f"preflight: {finding}")
    if failures := [finding for finding in findings if finding.level == "failure"]:
        first = failures[0]
        raise HostError(f"{first.subject}: {first.text}; {first.remedy}")
    if steps and _device(build.work_dir) != _device(build.engine_dir):
        check_room(build.engine_dir, build.tp_size * weight_bytes(build.checkpoint.config, build.tp_size))
    return sm


def _device(path: Path) -> int:
    """The file system that a path is on, or will be."""
    return path.stat().st_dev if path.exists() else _device(path.parent)


def _need(build: GpuBuild, steps: Sequence[str]) -> Need:
    """What these steps of the build need."""
    config, tp_size = build.checkpoint.config, build.tp_size
    host_bytes: dict[str, int] = {}
    if CONVERT in steps:
        host_bytes["converting"] = convert_host_bytes(config, tp_size)
    if BUILD in steps:
        host_bytes["building"] = build_host_bytes(config, tp_size)
    return Need(
        hf_checkpoint=build.checkpoint.path,
        config=config,
        limits=build.limits,
        tp_size=tp_size,
        # Converting and building each write the weights of every rank.
        disk_bytes=len(steps) * tp_size * weight_bytes(config, tp_size),
        host_bytes=host_bytes,
        other_disk_remedy=other_remedy(build.engine_dir),
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
    """Outside these bounds the builder takes another max_num_tokens and only logs a warning.

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
    """The frontend counts cached tokens with this parameter, and the engine is built with the builder's default."""
    if (found := config.tokens_per_block) != TOKENS_PER_BLOCK:
        raise RepositoryError(f"{config.path}: tokens_per_block is {found}; accepted: {TOKENS_PER_BLOCK}")


def _check_no_stray_weights(checkpoint: Checkpoint) -> None:
    """NVIDIA's loader reads every *.safetensors of the directory, whatever the index says."""
    known = set(checkpoint.shards.values())
    for file in sorted(checkpoint.path.glob("*.safetensors")):
        if file.name not in known:
            raise CheckpointError(f"{file.name}: not in the index, and the converter would read it; move it away")
