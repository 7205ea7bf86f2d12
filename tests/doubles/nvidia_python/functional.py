"""Stands for quantization/functional.py of TensorRT-LLM 1.2, of which the self check calls one function."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.doubles.staged_layout import preprocess, unpack


def preprocess_weights_for_mixed_gemm(
    tensor: NDArray[np.int8], quant_mode: str, act_dtype: Any, sm_: int = -1, do_weight_interleave: bool = True
) -> NDArray[np.int8]:
    """Signed 4-bit values int8 [K, N/2], or [experts, K, N/2] -> the same shape in the order of the kernels."""
    stacked = tensor.ndim == 3

    def ordered(packed: NDArray[np.int8]) -> NDArray[np.uint8]:
        signed = unpack(packed.view(np.uint8)).reshape(len(packed), -1)
        return preprocess((signed + np.uint8(8)) & np.uint8(15), sm=sm_, stacked=stacked)

    matrices = tensor if stacked else tensor[None]
    return np.stack([ordered(matrix) for matrix in matrices]).reshape(tensor.shape).view(np.int8)
