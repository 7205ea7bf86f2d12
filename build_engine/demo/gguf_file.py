"""Read a GGUF file: its fields, and its tensors as float32.

Source: ggml, docs/gguf.md (version 3), and ggml/src/ggml-common.h for the blocks of Q4_1 and Q8_0. The package `gguf`
reads every format; for the 98,000 strings of a vocabulary it takes 6 s, this 0.2 s.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from build_engine.awq import Float32, Uint8
from build_engine.errors import CheckpointError

Decode: TypeAlias = Callable[[Uint8], Float32]

_MAGIC = b"GGUF"
_VERSION = 3
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Value types by their numbers, as `struct` names them."""
_STRING, _ARRAY = 8, 9
_ALIGNMENT = 32
"""Bytes; tensor data begins at a multiple of this, unless the field general.alignment has another."""


@dataclass(frozen=True, slots=True)
class GgufFile:
    """`fields` by name: numbers, strings, lists of them. `tensors` by name, not decoded yet."""

    fields: Mapping[str, Any]
    tensors: Mapping[str, "GgufTensor"]


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """The blocks of a tensor [number of blocks, bytes of a block], as they are in the file."""

    shape: tuple[int, ...]
    blocks: Uint8
    decode: Decode

    def values(self) -> Float32:
        """Dequantised; the last dimension is the one that GGUF names first."""
        return self.decode(self.blocks).reshape(self.shape)


def read_gguf(path: Path) -> GgufFile:
    """Raises CheckpointError for another format, version or type of tensor."""
    data = np.memmap(path, np.uint8, mode="r")
    cursor = _Cursor(data.data)
    found, version = cursor.take(4), cursor.number("I")
    if (found, version) != (_MAGIC, _VERSION):
        raise CheckpointError(f"{path.name}: begins with {found!r}, {version}; accepted: GGUF version {_VERSION}")
    num_tensors, num_fields = cursor.number("Q"), cursor.number("Q")
    fields = {cursor.string(): cursor.value(cursor.number("I")) for _ in range(num_fields)}
    heads = [_tensor_head(cursor) for _ in range(num_tensors)]
    alignment = fields.get("general.alignment", _ALIGNMENT)
    start = -(-cursor.position // alignment) * alignment
    return GgufFile(fields, {name: _tensor(name, data[start + at :], shape, kind) for name, shape, kind, at in heads})


class _Cursor:
    """Reads little-endian values one after the other."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.position = 0

    def take(self, size: int) -> bytes:
        start, self.position = self.position, self.position + size
        return bytes(self._data[start : self.position])

    def number(self, kind: str) -> Any:
        return self.numbers(kind, 1)[0]

    def numbers(self, kind: str, count: int) -> tuple[Any, ...]:
        layout = struct.Struct(f"<{count}{kind}")
        return layout.unpack(self.take(layout.size))

    def string(self) -> str:
        return self.take(self.number("Q")).decode()

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array(self.number("I"), self.number("Q"))
        return self.number(_SCALARS[kind])

    def _array(self, kind: int, count: int) -> list[Any]:
        if kind in _SCALARS:
            return list(self.numbers(_SCALARS[kind], count))
        return [self.value(kind) for _ in range(count)]


def _tensor_head(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape, type and offset in the data."""
    name, num_dimensions = cursor.string(), cursor.number("I")
    dimensions = cursor.numbers("Q", num_dimensions)
    return name, dimensions[::-1], cursor.number("I"), cursor.number("Q")


def _tensor(name: str, data: Uint8, shape: tuple[int, ...], kind: int) -> GgufTensor:
    if kind not in _FORMATS:
        raise CheckpointError(f"tensor {name}: of type {kind}; accepted: {', '.join(map(str, _FORMATS))} of ggml")
    values_per_block, block_bytes, decode = _FORMATS[kind]
    num_blocks = int(np.prod(shape)) // values_per_block
    return GgufTensor(shape, data[: num_blocks * block_bytes].reshape(num_blocks, block_bytes), decode)


def _f32(blocks: Uint8) -> Float32:
    return blocks.view(np.float32)


def _q8_0(blocks: Uint8) -> Float32:
    """A float16 scale and 32 int8."""
    values: Float32 = _halves(blocks[:, :2]) * blocks[:, 2:].view(np.int8)
    return values


def _q4_1(blocks: Uint8) -> Float32:
    """A float16 scale, a float16 minimum, 16 bytes: the low nibbles are the first 16 values, the high ones the rest."""
    packed = blocks[:, 4:]
    quants = np.concatenate([packed & np.uint8(15), packed >> np.uint8(4)], axis=1)
    values: Float32 = quants * _halves(blocks[:, :2]) + _halves(blocks[:, 2:4])
    return values


def _halves(column: NDArray[np.uint8]) -> Float32:
    return np.ascontiguousarray(column).view(np.float16).astype(np.float32)


_FORMATS: Mapping[int, tuple[int, int, Decode]] = {0: (1, 4, _f32), 3: (32, 20, _q4_1), 8: (32, 34, _q8_0)}
"""Types of ggml by their numbers: values in a block, bytes of a block, how to decode. F32, Q4_1, Q8_0."""
