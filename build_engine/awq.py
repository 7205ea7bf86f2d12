"""The AutoAWQ gemm layout: 4-bit values packed eight to an int32. Nothing here touches the disk.

A quantised linear of K inputs and N outputs is three tensors: `qweight` int32 [K, N/8], `qzeros` int32
[K/group_size, N/8], `scales` float16 [K/group_size, N], and means
W[k, n] = (q[k, n] - z[k // group_size, n]) * scales[k // group_size, n].
Source: AutoAWQ 0.2, `awq/modules/linear/gemm.py`; zeros are stored as they are, unlike GPTQ's "minus one".
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .mixtral import PACK_FACTOR

Int32: TypeAlias = NDArray[np.int32]
Int64: TypeAlias = NDArray[np.int64]
Uint8: TypeAlias = NDArray[np.uint8]
Float16: TypeAlias = NDArray[np.float16]
Float32: TypeAlias = NDArray[np.float32]

MAX_QUANT = 15
"""The largest 4-bit value."""
PACK_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Nibble i of an int32 holds output channel PACK_ORDER[i] of its eight."""


def unpack_int4(packed: Int32) -> Uint8:
    """int32 [rows, N/8] -> uint8 [rows, N] with values 0..15, channels in their natural order."""
    rows, columns = packed.shape
    words = np.ascontiguousarray(packed).view(np.uint32)
    values = np.empty((rows, columns, PACK_FACTOR), np.uint8)
    for nibble, channel in enumerate(PACK_ORDER):
        values[:, :, channel] = (words >> np.uint32(4 * nibble)) & np.uint32(MAX_QUANT)
    return values.reshape(rows, columns * PACK_FACTOR)


def unpack_int4_by_channel(packed: Int32) -> Uint8:
    """int32 [rows, N/8] -> uint8 [N, rows]: the transpose of `unpack_int4`, three times as fast as transposing that."""
    words = np.ascontiguousarray(packed.T).view(np.uint32)
    octets, rows = words.shape
    values = np.empty((octets, PACK_FACTOR, rows), np.uint8)
    for nibble, channel in enumerate(PACK_ORDER):
        values[:, channel] = (words >> np.uint32(4 * nibble)) & np.uint32(MAX_QUANT)
    return values.reshape(octets * PACK_FACTOR, rows)


def pack_int4(values: Uint8) -> Int32:
    """uint8 [rows, N] with values 0..15 -> int32 [rows, N/8]; the inverse of `unpack_int4`. N is a multiple of 8."""
    rows, channels = values.shape
    octets = values.reshape(rows, channels // PACK_FACTOR, PACK_FACTOR).astype(np.uint32)
    words = np.zeros(octets.shape[:2], np.uint32)
    for nibble, channel in enumerate(PACK_ORDER):
        words |= octets[:, :, channel] << np.uint32(4 * nibble)
    return words.view(np.int32)


def dequantize(qweight: Int32, qzeros: Int32, scales: Float16) -> Float32:
    """The weight that the three tensors stand for, float32 [K, N] (inputs first, as AutoAWQ stores them)."""
    quants = unpack_int4(qweight)
    groups = scales.shape[0]
    quants_by_group = quants.reshape(groups, -1, quants.shape[1]).astype(np.float32)
    zeros = unpack_int4(qzeros).astype(np.float32)[:, None, :]
    weight: Float32 = (quants_by_group - zeros) * scales.astype(np.float32)[:, None, :]
    return weight.reshape(quants.shape)
