"""The programs of NVIDIA's image, and the commands by which the build runs them. Nothing is run here."""

import re
from dataclasses import dataclass
from pathlib import Path

from build_engine.model_config import Limits

IMAGE = "nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3"
"""The image to build and serve in."""
VERSION = "1.2.1"
"""The release of TensorRT-LLM in IMAGE, the newest that builds engines. An engine runs with no other."""
_RELEASE = re.compile(re.escape(VERSION) + r"(\.(post)?\d+)*(\+[\w.-]+)?")
CONVERTER = Path("/app/examples/models/core/llama/convert_checkpoint.py")
BACKEND = Path("/opt/tritonserver/backends/tensorrtllm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """Where the programs are: paths, or names on the PATH."""

    converter: Path = CONVERTER
    backend: Path = BACKEND
    python: str = "python3"
    trtllm_build: str = "trtllm-build"
    tritonserver: str = "tritonserver"
    mpirun: str = "mpirun"
    nvidia_smi: str = "nvidia-smi"


def is_release(version: str) -> bool:
    """Whether a version of TensorRT-LLM is VERSION: NVIDIA's builds of one release add a number or a local label."""
    return _RELEASE.fullmatch(version) is not None


def convert_command(tools: Toolchain, hf_checkpoint: Path, output_dir: Path, tp_size: int) -> list[str]:
    """Convert an AutoAWQ checkpoint, which the converter recognises by its config.json.

    No `--use_weight_only`: it would select the loader for NVIDIA's own AWQ. float16, because the experts' scales stay
    float16 with any `--dtype`. One worker, because each holds the source checkpoint in memory.
    """
    options = {"model_dir": hf_checkpoint, "output_dir": output_dir, "dtype": "float16"}
    split = {"tp_size": tp_size, "moe_tp_size": tp_size, "workers": 1}
    return [tools.python, str(tools.converter), *_flags(options | split)]


def build_command(
    tools: Toolchain, trtllm_checkpoint: Path, output_dir: Path, timing_cache: Path, limits: Limits, tp_size: int
) -> list[str]:
    """Build for exactly the limits of config.pbtxt. The builder enables the plugins of 4-bit linears by itself.

    It warns that --gather_generation_logits is deprecated, as a setting of the executor does the same. Triton's backend
    does not set that one (model_instance_state.cc of TensorRT-LLM 1.2), so the engine must have it.
    """
    options = {
        "checkpoint_dir": trtllm_checkpoint,
        "output_dir": output_dir,
        # For lm_head, which is not quantised.
        "gemm_plugin": "auto",
        "kv_cache_type": "paged",
        # Reuse of the KV cache and chunked context need it.
        "use_paged_context_fmha": "enable",
        # Kernels are chosen for several numbers of tokens: the build takes longer, steps are faster.
        "multiple_profiles": "enable",
        "max_batch_size": limits.max_batch_size,
        "max_num_tokens": limits.max_num_tokens,
        "max_seq_len": limits.max_seq_len,
        "max_beam_width": 1,
        "workers": tp_size,
        "input_timing_cache": timing_cache,
        "output_timing_cache": timing_cache,
    }
    gather = ["--gather_generation_logits"] if limits.gather_generation_logits else []
    return [tools.trtllm_build, *_flags(options), "--monitor_memory", *gather]


def flags_of(command: list[str]) -> list[str]:
    """The options that a command uses, for comparison with its `--help`."""
    return [argument for argument in command if argument.startswith("--")]


def _flags(options: dict[str, object]) -> list[str]:
    return [part for name, value in options.items() for part in (f"--{name}", str(value))]


def serve_command(tools: Toolchain, repository: Path, tp_size: int, http_port: int, metrics_port: int) -> list[str]:
    """Start Triton with the model of `repository`, on loopback. For several GPUs, mpirun starts one process for each.

    Rank 0 answers; the others wait in the backend for its work and open no ports. Source: launch_triton_server.py of
    TensorRT-LLM 1.2 (leader mode).
    """
    options = {
        "model-repository": repository,
        "model-control-mode": "explicit",
        "load-model": "tensorrt_llm",
        "http-address": "127.0.0.1",
        "http-port": http_port,
        "metrics-address": "127.0.0.1",
        "metrics-port": metrics_port,
        "allow-grpc": "false",
    }
    server = [tools.tritonserver, "--disable-auto-complete-config"]
    server += [f"--{name}={value}" for name, value in options.items()]
    if tp_size == 1:
        return server
    ranks: list[str] = []
    for rank in range(tp_size):
        ranks += [":"] * bool(rank) + ["-n", "1", *server]
    # The build runs as the checkout's owner, who may be root. mpirun would bind each of two ranks to one core.
    return [tools.mpirun, "--allow-run-as-root", "--bind-to", "none", *ranks]
