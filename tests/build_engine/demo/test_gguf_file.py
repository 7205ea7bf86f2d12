"""GGUF files of a few bytes, written here by the specification."""

import struct
from pathlib import Path

import numpy as np
import pytest

from build_engine.demo.gguf_file import read_gguf
from build_engine.errors import CheckpointError

U32, STRING, ARRAY = 4, 8, 9
F32, Q4_0, Q4_1, Q8_0 = 0, 2, 3, 8


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def field(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def write(path: Path, fields: list[bytes], tensors: dict[str, tuple[int, list[int], bytes]], version: int = 3) -> Path:
    """Tensors by name: type, dimensions with the fastest first, data."""
    heads, data = b"", b""
    for name, (kind, dimensions, content) in tensors.items():
        data += bytes(-len(data) % 32)
        heads += text(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, len(data))
        data += content
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(fields)) + b"".join(fields) + heads
    path.write_bytes(head + bytes(-len(head) % 32) + data)
    return path


def test_fields_are_numbers_strings_and_lists(tmp_path: Path) -> None:
    strings = struct.pack("<IQ", STRING, 2) + text("Grüße") + text("")
    numbers = struct.pack("<IQ3i", 5, 3, 1, -2, 3)
    fields = [
        field("layers", U32, struct.pack("<I", 30)),
        field("eps", 6, struct.pack("<f", 0.5)),
        field("is_tied", 7, b"\1"),
        field("tokens", ARRAY, strings),
        field("types", ARRAY, numbers),
    ]
    assert read_gguf(write(tmp_path / "m.gguf", fields, {})).fields == {
        "layers": 30,
        "eps": 0.5,
        "is_tied": True,
        "tokens": ["Grüße", ""],
        "types": [1, -2, 3],
    }


def test_tensors_have_the_shape_of_numpy(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32)
    file = write(tmp_path / "m.gguf", [], {"a": (F32, [3, 2], values.tobytes()), "b": (F32, [3], values[:3].tobytes())})
    tensors = read_gguf(file).tensors
    np.testing.assert_array_equal(tensors["a"].values(), values.reshape(2, 3))
    np.testing.assert_array_equal(tensors["b"].values(), values[:3])


def test_q4_1_has_the_first_half_of_a_block_in_the_low_nibbles(tmp_path: Path) -> None:
    quants = np.arange(32) % 16
    packed = (quants[:16] | quants[16:][::-1] << 4).astype(np.uint8)
    block = np.array([0.5, -3], np.float16).tobytes() + packed.tobytes()
    (tensor,) = read_gguf(write(tmp_path / "m.gguf", [], {"w": (Q4_1, [32, 1], block)})).tensors.values()
    expected = np.concatenate([quants[:16], quants[16:][::-1]]) * 0.5 - 3
    np.testing.assert_array_equal(tensor.values(), expected.reshape(1, 32))


def test_q8_0_is_a_scale_and_signed_bytes(tmp_path: Path) -> None:
    quants = np.arange(-16, 16, dtype=np.int8)
    block = np.array([0.25], np.float16).tobytes() + quants.tobytes()
    (tensor,) = read_gguf(write(tmp_path / "m.gguf", [], {"w": (Q8_0, [32], block)})).tensors.values()
    np.testing.assert_array_equal(tensor.values(), quants * 0.25)


def test_another_type_format_or_version_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="tensor w: of type 2; accepted: 0, 3, 8"):
        read_gguf(write(tmp_path / "m.gguf", [], {"w": (Q4_0, [32], bytes(18))}))
    with pytest.raises(CheckpointError, match="accepted: GGUF version 3"):
        read_gguf(write(tmp_path / "m.gguf", [], {}, version=2))
    (tmp_path / "text").write_text("not a model at all")
    with pytest.raises(CheckpointError, match="b'not '"):
        read_gguf(tmp_path / "text")
