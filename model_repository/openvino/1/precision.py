"""What the engine computes in. `auto` chooses by what this CPU has.

Measured on a Xeon with AMX, GenAI's pipeline with a model of the demo's sizes on two cores: tokens/s at 1, 8 and 32
streams, and seconds for a prompt of 1,500 tokens. bf16: 47, 183, 354, 1.1 s. f32: 40, 80, 66, 11.3 s. int8 activations
beside bf16 (34, 209, 404, 1.2 s) slow a single stream down, and f16 (11, 51, 66, 9.5 s) is the slowest. These are of
OpenVINO's GatherMatmul, which the experts of this engine do not use any more.
"""

from collections.abc import Mapping
from pathlib import Path

AUTO = "auto"
PRECISIONS: Mapping[str, Mapping[str, object]] = {
    "f32": {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0},
    "f32_int8": {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 32},
    "bf16": {"INFERENCE_PRECISION_HINT": "bf16", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0},
}
"""OpenVINO's properties for each. `f32_int8`: activations of linears in int8, scaled per 32 channels."""

_CPU_INFO = Path("/proc/cpuinfo")


def choose_precision(name: str, cpu_flags: frozenset[str]) -> str:
    """The precision by this name. `auto` is bf16 with AMX, which has matrix units for it, and f32 without.

    Raises ValueError that lists the accepted names.
    """
    if name == AUTO:
        return "bf16" if "amx_bf16" in cpu_flags else "f32"
    if name not in PRECISIONS:
        raise ValueError(f"precision is {name!r}; accepted: {AUTO}, {', '.join(PRECISIONS)}")
    return name


def read_cpu_flags(cpu_info: Path = _CPU_INFO) -> frozenset[str]:
    """The features of the first CPU, as Linux names them; none where it lists none."""
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    flags = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(flags.partition(":")[2].split())
