"""A quantised linear as AutoAWQ packs it: read from a checkpoint, split among GPUs, fused with others."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .awq import Float16, Float32, Int32, Uint8, dequantize, unpack_int4
from .checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class AwqLinear:
    """`qweight` int32 [K, N/8], `qzeros` int32 [G, N/8], `scales` float16 [G, N] of G groups of inputs."""

    qweight: Int32
    qzeros: Int32
    scales: Float16

    @property
    def inputs(self) -> int:
        """K."""
        return self.qweight.shape[0]

    @property
    def outputs(self) -> int:
        """N."""
        return self.scales.shape[1]

    def zeros(self) -> Uint8:
        """uint8 [G, N] with values 0..15."""
        return unpack_int4(self.qzeros)

    def dequantized(self) -> Float32:
        """The weight, float32 [K, N]."""
        return dequantize(self.qweight, self.qzeros, self.scales)

    def column_part(self, rank: int, tp_size: int) -> "AwqLinear":
        """The outputs of one rank."""
        return self._part(rank, tp_size, axis=1)

    def row_part(self, rank: int, tp_size: int) -> "AwqLinear":
        """The inputs of one rank, with their groups."""
        return self._part(rank, tp_size, axis=0)

    def _part(self, rank: int, tp_size: int, axis: int) -> "AwqLinear":
        return AwqLinear(
            np.split(self.qweight, tp_size, axis)[rank],
            np.split(self.qzeros, tp_size, axis)[rank],
            np.split(self.scales, tp_size, axis)[rank],
        )


def side_by_side(linears: Sequence[AwqLinear]) -> AwqLinear:
    """Fuse linears that have the same inputs; their outputs in the order given."""
    return AwqLinear(
        np.concatenate([linear.qweight for linear in linears], axis=1),
        np.concatenate([linear.qzeros for linear in linears], axis=1),
        np.concatenate([linear.scales for linear in linears], axis=1),
    )


def read_linear(checkpoint: Checkpoint, name: str) -> AwqLinear:
    """The linear whose tensors' names begin with `name`. Raises CheckpointError for scales that are not finite."""
    return AwqLinear(*(checkpoint.tensor(f"{name}.{part}") for part in ("qweight", "qzeros", "scales")))
