"""Write the engine as OpenVINO IR, one tensor in memory at a time.

`ov.save_model` would need all weights at once. The graph is saved without them, and then each placeholder in the XML
becomes a constant whose bytes are appended to the .bin (IR version 11: a Const layer's data is element_type, shape,
offset and size in the .bin).
"""

import errno
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from build_engine.awq import Uint8, unpack_int4_by_channel
from build_engine.mixtral import MixtralConfig

from .graph import MixtralGraph
from .placeholders import STACKED

MODEL_XML = "openvino_model.xml"
_ALIGNMENT = 64
"""Bytes; each constant begins at a multiple of this."""


class Weights(Protocol):
    """Where tensors come from: a `Checkpoint`, or a stand-in for one."""

    @property
    def config(self) -> MixtralConfig:
        """The sizes of the model."""

    def tensor(self, name: str) -> NDArray[Any]:
        """A tensor of `mixtral.expected_tensors`: packed int32 as AutoAWQ stores it, or float16."""


def write_ir(weights: Weights, directory: Path, advance: Callable[[int], None]) -> None:
    """Write openvino_model.xml and .bin into `directory`; `advance` is called with the bytes written of each tensor.

    Raises what `weights` raises, and OSError when the files cannot be written.
    """
    graph = MixtralGraph(weights.config)
    xml = directory / MODEL_XML
    save_model(graph.build(), xml)
    tree = ET.parse(xml)
    layers = {layer.get("name"): layer for layer in tree.iter("layer") if layer.get("type") == "Parameter"}
    with xml.with_suffix(".bin").open("ab") as file:
        for placeholder in graph.placeholders.parameters:
            name = placeholder.get_friendly_name()
            offset = _align(file)
            for array in encode_weight(weights, name):
                file.write(array.data)
                advance(array.nbytes)
            _to_constant(layers[name], offset, file.tell() - offset)
    tree.write(xml)


def save_model(model: ov.Model, xml: Path) -> None:
    """Save without compression. Raises OSError for a full disk, which `ov.save_model` reports as "iostream error"."""
    try:
        ov.save_model(model, xml, compress_to_fp16=False)
    except RuntimeError as error:
        raise OSError(errno.EIO, f"full? OpenVINO: {error}", str(xml)) from error


def encode_weight(weights: Weights, name: str) -> Iterator[NDArray[Any]]:
    """The bytes of one constant: an array for each tensor that is stacked in it."""
    for tensor in name.split(STACKED):
        yield _encode(tensor, weights.tensor(tensor))


def _encode(name: str, tensor: NDArray[Any]) -> NDArray[Any]:
    if name.endswith((".qweight", ".qzeros")):
        return pack_u4(unpack_int4_by_channel(tensor))
    if name.endswith(".scales"):
        return np.ascontiguousarray(tensor.T)
    return tensor


def pack_u4(values: Uint8) -> Uint8:
    """Values 0..15 of any shape, an even number of them -> bytes, the earlier value in the low nibble."""
    flat = values.reshape(-1)
    packed: Uint8 = flat[0::2] | (flat[1::2] << np.uint8(4))
    return packed


def _align(file: BinaryIO) -> int:
    """Pad to the next multiple of 64 bytes and return the position."""
    file.write(b"\0" * (-file.tell() % _ALIGNMENT))
    return file.tell()


def _to_constant(layer: ET.Element, offset: int, size: int) -> None:
    layer.set("type", "Const")
    data = layer.find("data")
    assert data is not None, "a Parameter layer of IR version 11 has a data element"
    data.set("offset", str(offset))
    data.set("size", str(size))
