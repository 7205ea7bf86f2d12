"""TensorRT-LLM's order of 4-bit weights, in the stages of its `preprocess_weights_for_mixed_gemm`.

Shares no code with `verify`, which uses a closed form. Source: quantization/functional.py of TensorRT-LLM 1.2.
"""

import numpy as np
from numpy.typing import NDArray

Uint8 = NDArray[np.uint8]

_FIRST_HALF = (0, 1, 8, 9, 16, 17, 24, 25, 2, 3, 10, 11, 18, 19, 26, 27)
ROW_PERMUTATION = (*_FIRST_HALF, *(row + 4 for row in _FIRST_HALF))


def preprocess(unsigned: Uint8, sm: int, *, stacked: bool) -> Uint8:
    """AutoAWQ's values uint8 [K, N] -> bytes [K, N/2]. `stacked` weights (experts) take the Ampere layout on SM 90."""
    layout_sm = 80 if stacked and sm >= 90 else sm
    inputs, outputs = unsigned.shape
    signed = (unsigned - np.uint8(8)) & np.uint8(15)
    permuted = signed.reshape(inputs // 32, 32, outputs)[:, ROW_PERMUTATION, :].reshape(inputs, outputs)
    columns = pack(np.ascontiguousarray(permuted.T))
    if layout_sm < 90:
        columns = columns.reshape(outputs // 4, 4, inputs // 64, 32).swapaxes(1, 2)
    runs = unpack(np.ascontiguousarray(columns)).reshape(-1, 8)[:, [0, 2, 4, 6, 1, 3, 5, 7]]
    return pack(np.ascontiguousarray((runs + np.uint8(8)) & np.uint8(15))).reshape(inputs, outputs // 2)


def pack(nibbles: Uint8) -> Uint8:
    """Two to a byte, flat, the first in the low nibble."""
    flat = nibbles.reshape(-1)
    packed: Uint8 = flat[0::2] | (flat[1::2] << np.uint8(4))
    return packed


def unpack(packed: Uint8) -> Uint8:
    """The inverse of `pack`."""
    flat = packed.reshape(-1)
    nibbles: Uint8 = np.stack([flat & np.uint8(15), flat >> np.uint8(4)], axis=-1).reshape(-1)
    return nibbles


def unpack_awq(packed: NDArray[np.int32]) -> Uint8:
    """int32 [rows, N/8] -> uint8 [rows, N]: bytes in memory order, then eight channels in order."""
    rows = len(packed)
    nibbles = unpack(np.ascontiguousarray(packed).view(np.uint8)).reshape(rows, -1, 8)
    return nibbles[:, :, [0, 4, 1, 5, 2, 6, 3, 7]].reshape(rows, -1)
