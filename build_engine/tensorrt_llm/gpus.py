"""The GPUs that this product supports, as values."""

from dataclasses import dataclass

SUPPORTED_SMS = (80, 86, 89, 90)
"""Architectures that TensorRT-LLM builds engines with 4-bit experts for."""
_HOPPER = 90
"""Its attention kernels read their weights in another order than those of older architectures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU by its data sheet. `memory_gib` is what is left of its memory once a CUDA context exists."""

    name: str
    sm: int
    memory_gib: float
    bandwidth_tb_s: float
    float16_tflops: float


_KNOWN = (
    Gpu(name="h200", sm=90, memory_gib=139.5, bandwidth_tb_s=4.8, float16_tflops=989),
    Gpu(name="h100-80g", sm=90, memory_gib=79, bandwidth_tb_s=3.35, float16_tflops=989),
    Gpu(name="a100-80g", sm=80, memory_gib=79, bandwidth_tb_s=2.039, float16_tflops=312),
    Gpu(name="l40s", sm=89, memory_gib=44.5, bandwidth_tb_s=0.864, float16_tflops=362),
    Gpu(name="a6000", sm=86, memory_gib=44.5, bandwidth_tb_s=0.768, float16_tflops=154.8),
    Gpu(name="rtx4090", sm=89, memory_gib=23.5, bandwidth_tb_s=1.008, float16_tflops=165.2),
)
GPUS = {gpu.name: gpu for gpu in _KNOWN}
"""GPUs by name. Source: NVIDIA's data sheets (bandwidth, dense float16 with float32 accumulation)."""


def refusal(sm: int) -> str | None:
    """Why no engine can be built on an architecture, or None. Source: builder.py of TensorRT-LLM 1.2."""
    if sm in SUPPORTED_SMS:
        return None
    if 100 <= sm < 120:
        return f"SM {sm}: TensorRT-LLM's builder refuses 4-bit weights on Blackwell"
    if sm >= 120:
        return f"SM {sm}: TensorRT-LLM's 4-bit experts are untested on it"
    return f"SM {sm}: older than Ampere"


def is_interleaved(sm: int, *, expert: bool) -> bool:
    """Whether 4-bit weights are stored in tiles of four columns: all experts, and attention before SM 90.

    Source: `preprocess_weights_for_mixed_gemm` in quantization/functional.py of TensorRT-LLM 1.2.
    """
    return expert or sm < _HOPPER
