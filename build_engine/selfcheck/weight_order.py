"""The order of 4-bit weights: this product's closed form against recorded digests, and against NVIDIA's function."""

import hashlib
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from build_engine.awq import Uint8
from build_engine.errors import ConversionError
from build_engine.mixtral import PACK_FACTOR
from build_engine.tensorrt_llm.commands import Toolchain
from build_engine.tensorrt_llm.gpus import is_interleaved
from build_engine.tensorrt_llm.layout import channel_bytes, input_order

from .programs import run_script
from .report import Check, NotKnown

RECORDED = {
    True: "58e21605a856bba1ce6b977f91d0e948e1ad026d220716e1ce59ade7b59609da",
    False: "5f4425d4173f9b2ae958c70dcd59776437c642a4624b726ccee1ec9f03af454b",
}
"""interleaved -> sha256 of the bytes of q[k, n] = (7k + 5n + k n) mod 16 with K = 256 and N = 64.

Computed in the stages of `preprocess_weights_for_mixed_gemm` (quantization/functional.py of TensorRT-LLM 1.2)."""
_SMS = (80, 90)
"""One architecture of each order."""
_SHAPES = {"attention": (256, 192), "experts": (2, 192, 256)}
"""[K, N] of a linear, and [experts, K, N]: NVIDIA's function takes three dimensions for experts."""

_NVIDIAS = """
import json, pathlib, sys
import numpy, torch
from tensorrt_llm.quantization.functional import preprocess_weights_for_mixed_gemm
source, target, sm = json.loads(sys.argv[1])
packed = torch.from_numpy(numpy.load(source))
ordered = preprocess_weights_for_mixed_gemm(packed, torch.quint4x2, torch.float16, sm_=sm)
numpy.save(target, numpy.asarray(ordered))
print(json.dumps(True))
"""
_FIND = """
import importlib.util, json
print(json.dumps([name for name in ("tensorrt_llm", "torch") if importlib.util.find_spec(name) is None]))
"""


def weight_order_checks(tools: Toolchain) -> Iterator[tuple[str, Check]]:
    """Subjects and checks, none of which takes GPU memory."""
    yield "weight order: recorded", recorded
    for sm in _SMS:
        for kind in _SHAPES:
            yield f"weight order: NVIDIA's, {kind}, SM {sm}", partial(_nvidias, tools, kind, sm)


def recorded() -> str:
    """Both orders have their recorded digests."""
    k, n = np.ogrid[:256, :64]
    values = ((7 * k + 5 * n + k * n) % 16).astype(np.uint8)
    for interleaved, expected in RECORDED.items():
        if (found := hashlib.sha256(ordered(values, interleaved=interleaved).tobytes()).hexdigest()) != expected:
            order = "interleaved" if interleaved else "not interleaved"
            raise ConversionError(f"{order}: {found}; accepted: {expected}")
    return "both orders have their recorded digests"


def ordered(values: Uint8, *, interleaved: bool) -> Uint8:
    """4-bit values uint8 [K, N], as AutoAWQ has them -> the bytes uint8 [K, N/2] that `layout` reads them from."""
    inputs, outputs = values.shape
    stored = np.zeros((inputs, outputs // 2), np.uint8)
    in_order = values[input_order(inputs)]
    for channel in range(PACK_FACTOR):
        places = channel_bytes(stored, channel, interleaved=interleaved)
        places[...] = _pairs(in_order[:, channel::PACK_FACTOR].T).reshape(places.shape)
    return stored


def _nvidias(tools: Toolchain, kind: str, sm: int) -> str:
    """Random weights in NVIDIA's order are in ours."""
    if missing := run_script(tools.python, _FIND, None):
        raise NotKnown(f"{' and '.join(missing)} not installed here; run in the image: make images")
    values = np.random.default_rng(sm).integers(0, 16, _SHAPES[kind], dtype=np.uint8)
    found = _run_nvidias(tools, values, sm).reshape(-1)
    matrices = values if kind == "experts" else values[None]
    interleaved = is_interleaved(sm, expert=kind == "experts")
    expected = np.concatenate([ordered(matrix, interleaved=interleaved).reshape(-1) for matrix in matrices])
    if found.shape != expected.shape:
        raise ConversionError(f"{found.size} bytes; accepted: {expected.size}")
    if different := int(np.count_nonzero(found != expected)):
        raise ConversionError(f"{different} of {expected.size} bytes differ from preprocess_weights_for_mixed_gemm's")
    return f"{expected.size} bytes of random weights are the same"


def _run_nvidias(tools: Toolchain, values: Uint8, sm: int) -> Uint8:
    signed = (values - np.uint8(8)) & np.uint8(15)
    with tempfile.TemporaryDirectory() as directory:
        source, target = Path(directory, "source.npy"), Path(directory, "target.npy")
        np.save(source, _pairs(signed).view(np.int8))
        run_script(tools.python, _NVIDIAS, [str(source), str(target), sm])
        result: NDArray[Any] = np.load(target)
    return np.ascontiguousarray(result).view(np.uint8)


def _pairs(values: Uint8) -> Uint8:
    """[..., M] -> [..., M/2], the first of two values in the low nibble."""
    pairs: Uint8 = values[..., 0::2] | (values[..., 1::2] << np.uint8(4))
    return np.ascontiguousarray(pairs)
