"""Open what NVIDIA's converter wrote, and check that it is this Mixtral, quantised, complete, and of the right shapes.

The converter only logs a warning when it cannot read the quantisation (then it writes float16 weights) and when a shape
does not suit (then it pads with zeros), so everything is checked.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from build_engine.awq import Float16, Uint8
from build_engine.checkpoint import spec_of
from build_engine.errors import ConversionError
from build_engine.mixtral import MixtralConfig, TensorSpec

from .config_check import compare_config, lookup
from .expected_config import converted_config
from .layout import constant_tensors, rank_tensors

CONFIG = "config.json"


@dataclass(frozen=True, slots=True)
class PackedLinear:
    """A converted linear: `packed` uint8 [K, N/2], `weights_scaling_factor` and `zero` float16 [G, N]."""

    packed: Uint8
    weights_scaling_factor: Float16
    zero: Float16


class RankFile:
    """One `rank{r}.safetensors`, read tensor by tensor."""

    def __init__(self, file: Path, tensors: Any) -> None:
        self._file = file
        self._tensors = tensors

    def tensor(self, name: str) -> NDArray[Any]:
        """A whole tensor, as stored."""
        values: NDArray[Any] = self._tensors.get_tensor(name)
        return values

    def linear(self, name: str, expert: int | None = None) -> PackedLinear:
        """A linear by its prefix, or one expert of a stack of them."""
        weight, scales, zero = (
            self._part(f"{name}.{part}", expert) for part in ("weight", "weights_scaling_factor", "zero")
        )
        return PackedLinear(np.ascontiguousarray(weight).view(np.uint8), scales, zero)

    @property
    def names(self) -> frozenset[str]:
        """The names of all tensors."""
        return frozenset(self._tensors.keys())

    def check_tensors(self, weights: Mapping[str, TensorSpec], constants: Mapping[str, TensorSpec]) -> None:
        """Raises ConversionError for a tensor that is missing, unknown, or of another dtype or shape.

        `constants` may be missing.
        """
        if missing := weights.keys() - self.names:
            name = min(missing)
            raise ConversionError(f"{self._file.name}: tensor {name} is missing; accepted: {weights[name]}")
        accepted = {**weights, **constants}
        for name in sorted(self.names):
            if name not in accepted:
                raise ConversionError(f"{self._file.name}: tensor {name} is no part of a Mixtral in W4A16_GPTQ")
            if (found := spec_of(self._tensors.get_slice(name))) != (spec := accepted[name]):
                raise ConversionError(
                    f"{self._file.name}: tensor {name} is {found}; accepted: {spec}{_padding(found, spec)}"
                )

    def _part(self, name: str, expert: int | None) -> NDArray[Any]:
        if expert is None:
            return self.tensor(name)
        stacked: NDArray[Any] = self._tensors.get_slice(name)[expert : expert + 1]
        return stacked.squeeze(axis=0)


@contextmanager
def open_ranks(directory: Path, config: MixtralConfig, tp_size: int) -> Iterator[list[RankFile]]:
    """The files of all ranks, in order, their tensors checked. Raises ConversionError."""
    weights, constants = rank_tensors(config, tp_size), constant_tensors(config)
    with ExitStack() as stack:
        ranks = [_open(stack, directory / f"rank{rank}.safetensors", tp_size) for rank in range(tp_size)]
        for rank in ranks:
            rank.check_tensors(weights, constants)
        yield ranks


def _open(stack: ExitStack, file: Path, tp_size: int) -> RankFile:
    if not file.exists():
        raise ConversionError(f"{file.name}: missing; accepted: one file for each of {tp_size} ranks")
    try:
        return RankFile(file, stack.enter_context(safe_open(file, framework="numpy")))
    except (SafetensorError, OSError) as error:
        raise ConversionError(f"{file.name}: truncated or not a safetensors file ({error})") from error


def check_config(directory: Path, config: MixtralConfig, tp_size: int) -> list[str]:
    """Raises ConversionError when the converter's config.json is of another model, quantisation or split.

    Returns warnings: fields that this build does not know, and that are off.
    """
    try:
        fields = json.loads((directory / CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise ConversionError(f"{CONFIG}: the converter left none that can be read ({error})") from error
    if lookup(fields, "quantization.quant_algo") is None:
        raise ConversionError(
            f"{CONFIG}: quantization.quant_algo is null; the converter dropped the quantisation silently;"
            " accepted: W4A16_GPTQ, as which AutoAWQ is served"
        )
    comparison = compare_config(fields, converted_config(config, tp_size))
    if comparison.problem:
        raise ConversionError(f"{CONFIG}: {comparison.problem}")
    return [f"{CONFIG}: {warning}" for warning in comparison.warnings]


def _padding(found: TensorSpec, expected: TensorSpec) -> str:
    larger = len(found.shape) == len(expected.shape) and all(
        size >= wanted for size, wanted in zip(found.shape, expected.shape, strict=True)
    )
    return "; the converter padded it" if larger and found.shape != expected.shape else ""
