"""The demo checkpoint in GGUF is the same model. gguf's own reading of Q4_1 is the oracle."""

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from build_engine.awq import pack_int4
from build_engine.awq_linear import AwqLinear
from build_engine.demo.source import half_rotation

from .models import to_q4_1, to_rope_pairs

INPUTS, OUTPUTS, GROUP_SIZE = 256, 24, 64


def random_linear() -> AwqLinear:
    rng = np.random.default_rng(0)
    groups = INPUTS // GROUP_SIZE
    return AwqLinear(
        pack_int4(rng.integers(0, 16, (INPUTS, OUTPUTS)).astype(np.uint8)),
        pack_int4(rng.integers(0, 16, (groups, OUTPUTS)).astype(np.uint8)),
        rng.uniform(0.001, 0.01, (groups, OUTPUTS)).astype(np.float16),
    )


def test_q4_1_stands_for_the_weights_of_awq() -> None:
    linear = random_linear()
    read = dequantize(to_q4_1(linear), GGMLQuantizationType.Q4_1)
    # A zero point times its scale is rounded to float16, once.
    largest = 15 * 0.01 * 2.0**-11
    np.testing.assert_allclose(read, linear.dequantized().T, rtol=0, atol=largest)


def test_rope_pairs_are_read_back_as_halves() -> None:
    rows = np.arange(2 * 8 * 3, dtype=np.uint8).reshape(2 * 8, 3)
    np.testing.assert_array_equal(half_rotation(to_rope_pairs(rows, 2).astype(np.float32), 2), rows)
