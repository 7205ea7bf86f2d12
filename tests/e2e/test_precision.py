"""What the CPU engine computes in: the choice by what the CPU has, and the distance to an independent forward."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import openvino as ov
import pytest

from build_engine.openvino.weights import MODEL_XML
from tests.e2e.conftest import ROOT
from tests.e2e.test_engine import feed
from tests.reference_mixtral import ReferenceMixtral
from tests.tiny_mixtral import TINY, tiny_tensors

AMX = frozenset({"avx512f", "avx512_bf16", "amx_bf16", "amx_tile"})
NO_AMX = frozenset({"avx512f", "avx512_bf16"})
TOLERANCES = {"f32": 1e-3, "f32_int8": 4e-2, "bf16": 2e-2}
"""Relative error of the logits. bfloat16 keeps 8 bits of a number: a rounding is off by at most 2**-9, 0.2 %. int8
activations are off by at most 1/254 of the largest of 32. Some ten roundings follow one another in this model."""


@pytest.fixture(scope="module")
def precision() -> ModuleType:
    """The Triton model's module; the model directory is no package."""
    spec = importlib.util.spec_from_file_location("precision", ROOT / "model_repository/openvino/1/precision.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "cpu_flags", "chosen"),
    [
        ("auto", AMX, "bf16"),
        ("auto", NO_AMX, "f32"),
        ("auto", frozenset(), "f32"),
        ("f32", AMX, "f32"),
        ("bf16", NO_AMX, "bf16"),
    ],
)
def test_auto_takes_bf16_where_the_cpu_has_matrix_units(
    precision: ModuleType, name: str, cpu_flags: frozenset[str], chosen: str
) -> None:
    assert precision.choose_precision(name, cpu_flags) == chosen


def test_an_unknown_precision_is_refused(precision: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"precision is 'f16'; accepted: auto, f32, f32_int8, bf16"):
        precision.choose_precision("f16", AMX)


def test_cpu_flags_are_read_as_linux_lists_them(precision: ModuleType, tmp_path: Path) -> None:
    cpu_info = tmp_path / "cpuinfo"
    cpu_info.write_text("processor\t: 0\nflags\t\t: fpu avx512f amx_bf16\n\nprocessor\t: 1\nflags\t\t: fpu\n")
    assert precision.read_cpu_flags(cpu_info) == {"fpu", "avx512f", "amx_bf16"}
    assert precision.read_cpu_flags(tmp_path / "missing") == frozenset()


@pytest.mark.parametrize("name", TOLERANCES)
def test_logits_are_as_exact_as_the_precision_allows(precision: ModuleType, model_repository: Path, name: str) -> None:
    engine = model_repository / "openvino" / "1" / "engine" / MODEL_XML
    compiled = ov.Core().compile_model(engine, "CPU", dict(precision.PRECISIONS[name]))
    prompt = np.random.default_rng(7).integers(0, TINY["vocab_size"], (1, 48))
    ours = compiled.create_infer_request().infer(feed(prompt))["logits"][0]
    theirs = ReferenceMixtral(TINY, tiny_tensors(TINY)).logits(prompt[0].tolist())
    assert np.linalg.norm(ours - theirs) / np.linalg.norm(theirs) < TOLERANCES[name]
