"""The compiled graph computes a Mixtral, compared with a numpy forward pass written from the papers."""

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray

from build_engine.openvino.weights import MODEL_XML
from tests.reference_mixtral import ReferenceMixtral
from tests.tiny_mixtral import TINY, tiny_tensors

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}


@pytest.fixture(scope="module")
def compiled(model_repository: Path) -> ov.CompiledModel:
    return ov.Core().compile_model(model_repository / "openvino" / "1" / "engine" / MODEL_XML, "CPU", EXACT)


def feed(token_ids: NDArray[np.int64], past: int = 0) -> dict[str, NDArray[Any]]:
    length = token_ids.shape[1]
    return {
        "input_ids": token_ids,
        "attention_mask": np.ones((1, past + length), np.int64),
        "position_ids": np.arange(past, past + length)[None],
        "beam_idx": np.zeros(1, np.int32),
    }


def batch_of(rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    num_rows, length = rows.shape
    return {
        "input_ids": rows,
        "attention_mask": np.ones((num_rows, length), np.int64),
        "position_ids": np.tile(np.arange(length), (num_rows, 1)),
        "beam_idx": np.arange(num_rows, dtype=np.int32),
    }


def test_logits_equal_an_independent_forward(compiled: ov.CompiledModel) -> None:
    prompt = np.random.default_rng(7).integers(0, TINY["vocab_size"], (1, 48))
    ours = compiled.create_infer_request().infer(feed(prompt))["logits"][0]
    theirs = ReferenceMixtral(TINY, tiny_tensors(TINY)).logits(prompt[0].tolist())
    assert np.linalg.norm(ours - theirs) / np.linalg.norm(theirs) < 1e-3


def test_logits_with_the_kv_cache_equal_those_without(compiled: ov.CompiledModel) -> None:
    tokens = np.random.default_rng(8).integers(0, TINY["vocab_size"], (1, 20))
    complete = compiled.create_infer_request().infer(feed(tokens))["logits"][0]
    stepwise = compiled.create_infer_request()
    stepwise.infer(feed(tokens[:, :15]))
    for position in range(15, 20):
        last = stepwise.infer(feed(tokens[:, position : position + 1], position))["logits"][0, -1]
        np.testing.assert_allclose(last, complete[position], atol=1e-4)


def test_each_token_has_the_same_logits_in_any_batch(compiled: ov.CompiledModel) -> None:
    """Whichever experts get none, one or all of the tokens."""
    rows = np.random.default_rng(9).integers(0, TINY["vocab_size"], (3, 6))
    together = compiled.create_infer_request().infer(batch_of(rows))["logits"]
    same = compiled.create_infer_request().infer(batch_of(np.repeat(rows[:1], 8, axis=0)))["logits"]
    for logits, row in zip([*together, *same], [*rows, *[rows[0]] * 8], strict=True):
        alone = compiled.create_infer_request().infer(feed(row[None]))["logits"][0]
        np.testing.assert_allclose(logits, alone, atol=1e-4)


def test_multiplications_are_few_and_attention_is_fused(compiled: ov.CompiledModel) -> None:
    nodes = [node.get_rt_info()["layerType"].get() for node in compiled.get_runtime_model().get_ordered_ops()]
    layers, experts = TINY["num_hidden_layers"], TINY["num_local_experts"]
    # In each layer q, k and v, the output, the router, and two of each expert; and the head.
    assert nodes.count("FullyConnected") == layers * (3 + 2 * experts) + 1
    assert nodes.count("RoPE") == 2 * layers
    assert nodes.count("RMS") == 2 * layers + 1
