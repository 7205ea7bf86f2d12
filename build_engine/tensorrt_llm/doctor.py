"""Judge whether this host can build and serve an engine, before anything costs time. Pure: facts in, findings out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from build_engine.mixtral import MixtralConfig
from build_engine.model_config import Limits

from .commands import IMAGE, VERSION, Toolchain, build_command, convert_command, flags_of, is_release
from .gpus import refusal
from .host import HostFacts, InstalledGpu
from .memory import GIB, RUNTIME_BYTES, kv_tokens, weight_bytes

Level = Literal["ok", "warning", "failure"]

_CUDA = (13, 0)
"""The least that the driver must support: any driver for CUDA 13 runs TensorRT-LLM 1.2.1."""
_CUDA_BUILT_WITH = (13, 1)
"""The CUDA that TensorRT-LLM 1.2.1 is built with."""
_SHM_BYTES = 2 * GIB
"""Shared memory that NCCL needs to connect several GPUs."""
_MIB = 2**20
_MISLEADING_NAMES = ("llava", "vila", "exaone")
"""The converter loads another model if the path contains one of these (models/llama/model.py of TensorRT-LLM 1.2)."""
_USE_THE_IMAGE = f"run in {IMAGE}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `doctor`'s output; `remedy` is empty if nothing is wrong."""

    level: Level
    subject: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.level:<8} {self.subject:<15} {self.text}{remedy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What the build needs. `disk_bytes` is what the steps that are not done yet will write.

    `host_bytes` has the host memory that each of them takes, by what it does ("converting").
    """

    hf_checkpoint: Path
    config: MixtralConfig
    limits: Limits
    tp_size: int
    disk_bytes: int
    host_bytes: Mapping[str, int]
    other_disk_remedy: str = ""
    """See `disk.other_remedy`."""


def examine(facts: HostFacts, need: Need, tools: Toolchain) -> list[Finding]:
    """All findings, in the order in which they would stop a build."""
    return [
        *_gpu_findings(facts, need),
        _driver(facts),
        _host_memory(facts, need),
        _disk(facts, need),
        _shared_memory(facts, need),
        _package(facts),
        _loader(facts),
        *_program_findings(facts, need, tools),
        *_traps(facts, need),
    ]


def _gpu_findings(facts: HostFacts, need: Need) -> Iterator[Finding]:
    if len(facts.gpus) < need.tp_size:
        text = f"{len(facts.gpus)} seen; tensor_parallel_size is {need.tp_size}"
        remedy = "start the container with --gpus all, or set tensor_parallel_size in config.pbtxt"
        yield Finding("failure", "GPUs", text, remedy)
        return
    gpus = facts.gpus[: need.tp_size]
    for gpu in gpus:
        if reason := refusal(gpu.sm):
            yield Finding("failure", f"GPU {gpu.index}", f"{gpu.name}, {reason}", "use one of SM 80, 86, 89 or 90")
        else:
            yield Finding("ok", f"GPU {gpu.index}", f"{gpu.name}, SM {gpu.sm}")
            yield _gpu_memory(gpu, need)
    if len({gpu.sm for gpu in gpus}) > 1:
        yield Finding("failure", "GPUs", "of different architectures", "an engine's ranks need equal GPUs")


def _gpu_memory(gpu: InstalledGpu, need: Need) -> Finding:
    subject = f"GPU {gpu.index} memory"
    weights = weight_bytes(need.config, need.tp_size)
    text = f"{gpu.free_mib / 1024:.1f} of {gpu.total_mib / 1024:.1f} GiB free; weights take {weights / GIB:.1f} GiB"
    if gpu.free_mib * _MIB < weights + RUNTIME_BYTES:
        remedy = (
            "stop what else uses the GPU, as a server does (make down), or take another GPU"
            " (CUDA_VISIBLE_DEVICES=1 make engine), or raise tensor_parallel_size"
        )
        return Finding("failure", subject, f"{text} and the runtime {RUNTIME_BYTES / GIB:.0f} GiB", remedy)
    tokens = kv_tokens(need.config, gpu.free_mib / 1024, need.tp_size)
    if tokens < need.limits.max_seq_len:
        remedy = "lower max_seq_len, or raise tensor_parallel_size"
        return Finding("warning", subject, f"{text}; a KV cache of {tokens} tokens is below max_seq_len", remedy)
    return Finding("ok", subject, f"{text}; room for about {tokens} tokens of KV cache")


def _driver(facts: HostFacts) -> Finding:
    if facts.cuda is None:
        return Finding("failure", "driver", "nvidia-smi does not answer", "start the container with --gpus all")
    text = f"{facts.driver}, CUDA {facts.cuda[0]}.{facts.cuda[1]}"
    if facts.cuda < _CUDA:
        return Finding("failure", "driver", f"{text}; accepted: CUDA 13", "install driver 590 on the host, or 580")
    if facts.cuda < _CUDA_BUILT_WITH:
        return Finding("warning", "driver", f"{text}; TensorRT-LLM {VERSION} was built with 13.1", "prefer driver 590")
    return Finding("ok", "driver", text)


def _host_memory(facts: HostFacts, need: Need) -> Finding:
    needed = max(need.host_bytes.values(), default=0)
    takes = ", ".join(f"{step} takes about {taken / GIB:.0f} GiB" for step, taken in need.host_bytes.items())
    text = f"{facts.host_free_bytes / GIB:.0f} GiB free; {takes or 'nothing is left to convert or build'}"
    if facts.host_free_bytes < needed:
        return Finding("failure", "host memory", text, "add memory or swap, or raise the container's limit")
    if facts.host_free_bytes < 1.5 * needed:
        return Finding("warning", "host memory", text, "an estimate, not a measurement: close other programs")
    return Finding("ok", "host memory", text)


def _disk(facts: HostFacts, need: Need) -> Finding:
    text = f"{facts.disk_free_bytes / GIB:.0f} GiB free; this build writes {need.disk_bytes / GIB:.0f} GiB"
    if facts.disk_free_bytes < need.disk_bytes:
        return Finding(
            "failure", "disk", text, f"free space, or name another disk with --work-dir{need.other_disk_remedy}"
        )
    return Finding("ok", "disk", text)


def _shared_memory(facts: HostFacts, need: Need) -> Finding:
    text = f"{facts.shm_bytes / GIB:.1f} GiB"
    if need.tp_size > 1 and facts.shm_bytes < _SHM_BYTES:
        return Finding(
            "failure", "/dev/shm", f"{text}; NCCL hangs without it", "start the container with --shm-size 2g"
        )
    return Finding("ok", "/dev/shm", text)


def _package(facts: HostFacts) -> Finding:
    if facts.tensorrt_llm is None:
        return Finding("failure", "tensorrt_llm", "not installed", _USE_THE_IMAGE)
    if not is_release(facts.tensorrt_llm):
        return Finding("failure", "tensorrt_llm", f"{facts.tensorrt_llm}; accepted: {VERSION}", _USE_THE_IMAGE)
    return Finding("ok", "tensorrt_llm", facts.tensorrt_llm)


def _loader(facts: HostFacts) -> Finding:
    """Since release 0.19 the converter recognises AutoAWQ, and the expert loader repacks its weights."""
    if "postprocess_awq" not in facts.loader_source:
        return Finding("failure", "AutoAWQ", "the expert loader (layers/moe.py) does not know it", _USE_THE_IMAGE)
    if facts.converter_source and "use_autoawq" not in facts.converter_source:
        return Finding("failure", "AutoAWQ", "the converter does not know it", _USE_THE_IMAGE)
    return Finding("ok", "AutoAWQ", "known to converter and loader")


def _program_findings(facts: HostFacts, need: Need, tools: Toolchain) -> Iterator[Finding]:
    anywhere = Path()
    convert = convert_command(tools, anywhere, anywhere, need.tp_size)
    build = build_command(tools, anywhere, anywhere, anywhere, need.limits, need.tp_size)
    yield _flags_known("converter", str(tools.converter), facts.converter_help, flags_of(convert))
    yield _flags_known("builder", tools.trtllm_build, facts.build_help, flags_of(build))
    if not facts.has_backend:
        text = f"no {tools.backend}: newer images serve no engines"
        yield Finding("failure", "Triton backend", text, _USE_THE_IMAGE)
    for program, found in facts.programs.items():
        if program == tools.mpirun and need.tp_size == 1:
            continue
        yield Finding("ok", program, "found") if found else Finding("failure", program, "not found", _USE_THE_IMAGE)


def _flags_known(subject: str, program: str, help_text: str, flags: list[str]) -> Finding:
    if not help_text:
        return Finding("failure", subject, f"{program} --help gives no answer", _USE_THE_IMAGE)
    known = set(help_text.replace(",", " ").replace("[", " ").replace("]", " ").split())
    if missing := [flag for flag in flags if flag not in known]:
        return Finding("failure", subject, f"{program} does not know {', '.join(missing)}", _USE_THE_IMAGE)
    return Finding("ok", subject, f"{program} knows the {len(flags)} options that it will be given")


def _traps(facts: HostFacts, need: Need) -> Iterator[Finding]:
    for word in _MISLEADING_NAMES:
        if word in str(need.hf_checkpoint).lower():
            text = f"the path {need.hf_checkpoint} contains {word!r}, which makes the converter load another model"
            yield Finding("failure", "checkpoint", text, "rename or link the directory")
    if "TRTLLM_DISABLE_UNIFIED_CONVERTER" in facts.environment:
        text = "TRTLLM_DISABLE_UNIFIED_CONVERTER is set, and only the unified loader knows AutoAWQ"
        yield Finding("failure", "environment", text, "unset it")
