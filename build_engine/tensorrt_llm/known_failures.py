"""What is known about failures of NVIDIA's tools, found by what they print."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KnownFailure:
    """`pattern` occurs in the tool's output; `known` says what that means, `remedy` what to try."""

    pattern: str
    known: str
    remedy: str


HOST_MEMORY_REMEDY = (
    "the converter holds the source and a converted rank in memory, the builder the weights and the engines:"
    " add memory or swap, or raise the container's limit (ENGINE_MEMORY)"
)
KNOWN_FAILURES = (
    KnownFailure(
        r"(?m)^(?!.*/dev/shm).*(No space left on device|Disk quota exceeded)",
        "the disk is full",
        "free space beside the model repository, or name another disk with --work-dir",
    ),
    KnownFailure(
        r"(?i)CUDA_ERROR_OUT_OF_MEMORY|out of memory|requested size was",
        "GPU memory ran out; the builder tries kernels with workspaces that grow with max_num_tokens"
        " (TensorRT-LLM issues 1908, 2043)",
        "stop what else uses the GPU, lower max_num_tokens and max_batch_size in config.pbtxt,"
        " or set tensor_parallel_size to 2",
    ),
    KnownFailure(
        r"MemoryError|std::bad_alloc|Cannot allocate memory",
        "host memory ran out",
        HOST_MEMORY_REMEDY,
    ),
    KnownFailure(
        r"(?i)no valid (weight only|gemm|tactic)|could not find any (tactic|implementation)",
        "no kernel fitted in the memory that was left, or the GPU is another than the weights were converted for",
        "lower max_num_tokens, and build on the GPU that converted (TensorRT-LLM issues 1543, 1850)",
    ),
    KnownFailure(
        r"(?s)not supported.{0,80}(Blackwell|SM ?(>= ?)?1[0-9]{2})|(Blackwell|SM ?1[0-9]{2}).{0,80}not support",
        "TensorRT-LLM does not build 4-bit weights for Blackwell",
        "use a GPU of SM 80, 86, 89 or 90",
    ),
    KnownFailure(
        r"GPTQ.{0,40}(MoE|MOE|not supported)|Unsupported quantization",
        "this TensorRT-LLM does not know 4-bit experts with zero points, which came with 0.19",
        "use the image that the build is made for; `doctor` names it",
    ),
    KnownFailure(
        r"(?i)version (tag )?(mismatch|does not match)|Serialization assertion|expecting library version",
        "the engine and the library that loads it are of different versions, or the GPU is another one"
        " (tensorrtllm_backend issues 370, 424)",
        "build and serve in the same image, on the same kind of GPU",
    ),
    KnownFailure(
        r"NCCL (WARN|error|failure)|ncclSystemError|unhandled system error|/dev/shm.{0,200}No space left on device",
        "the GPUs could not talk to each other; NCCL wants more shared memory than a container's 64 MB"
        " (TensorRT-LLM issue 9680)",
        "give the container --shm-size 2g and --ulimit memlock=-1; on PCIe machines try NCCL_P2P_DISABLE=1",
    ),
    KnownFailure(
        r"unrecognized arguments|invalid choice",
        "the tool does not know an option: it is of another release",
        "use the image that the build is made for; `doctor` names it",
    ),
    KnownFailure(
        r"CUDA driver version is insufficient|no CUDA-capable device|Found no NVIDIA driver",
        "the driver on the host is too old, or the container sees no GPU",
        "start the container with --gpus all; install driver 580 or newer on the host",
    ),
    KnownFailure(
        r"ModuleNotFoundError|ImportError|cannot open shared object file",
        "a Python package or library is missing: this is not the image that the build is made for",
        "run `doctor`",
    ),
)
"""The first that matches is reported, so a cause stands before its consequences."""


def known_failure(output: str, status: int) -> KnownFailure | None:
    """The first that matches what a tool printed. `status` is how it ended (negative: the signal that killed it)."""
    for failure in KNOWN_FAILURES:
        if re.search(failure.pattern, output):
            return failure
    if status in (-9, 137):
        return KnownFailure(
            "",
            "it was killed from outside, most likely because host memory ran out",
            HOST_MEMORY_REMEDY,
        )
    return None
