"""Layers that are upcycled in processes of their own."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import psutil
import pytest

from build_engine.demo.calibrate import Activations, LayerActivations, summarize
from build_engine.demo.mixtral import Attention, Config, Expert, Layer
from build_engine.demo.upcycle import LayerJob, draw, upcycle_layer
from build_engine.demo.workers import upcycle_layers
from build_engine.errors import CheckpointError

SIZE = 64
CONFIG = Config(
    num_layers=1,
    hidden_size=SIZE,
    intermediate_size=SIZE,
    num_heads=2,
    num_kv_heads=2,
    head_dim=SIZE // 2,
    rope_theta=10_000.0,
    rms_norm_eps=1e-5,
)


def job(seed: int) -> LayerJob:
    rng = np.random.default_rng(seed)

    def weight() -> np.ndarray[Any, np.dtype[np.float32]]:
        return rng.standard_normal((SIZE, SIZE)).astype(np.float32)

    def seen() -> Activations:
        return summarize(rng.standard_normal((300, SIZE)).astype(np.float32))

    norm = np.ones(SIZE, np.float32)
    attention = Attention(weight(), weight(), weight(), weight())
    layer = Layer(norm, attention, norm, np.zeros((SIZE, 1), np.float32), (Expert(weight(), weight(), weight()),))
    return LayerJob(layer, LayerActivations(seen(), seen(), seen(), seen()), CONFIG, draw(CONFIG, rng))


def test_layers_come_in_the_order_of_the_jobs_and_as_this_process_would_make_them() -> None:
    jobs = [job(seed) for seed in range(7)]
    with closing(upcycle_layers(jobs)) as layers:
        for given, made in zip(jobs, layers, strict=True):
            expected = upcycle_layer(given)
            np.testing.assert_allclose(made.gate, expected.gate, rtol=1e-5)
            assert made.linears.keys() == expected.linears.keys()
            name = "self_attn.q_proj"
            np.testing.assert_allclose(made.linears[name].scales, expected.linears[name].scales, rtol=1e-2)


def test_a_worker_that_dies_is_reported_with_its_status(capfd: pytest.CaptureFixture[str]) -> None:
    broken: Any = "no job"
    with closing(upcycle_layers([broken])) as layers, pytest.raises(CheckpointError, match="ended with status 1"):
        next(layers)
    assert "AttributeError" in capfd.readouterr().err


def test_no_worker_outlives_the_generator() -> None:
    def jobs() -> Iterator[LayerJob]:
        yield job(0)
        raise KeyboardInterrupt

    before = set(psutil.Process().children())
    with closing(upcycle_layers(jobs())) as layers, pytest.raises(KeyboardInterrupt):
        next(layers)
    assert set(psutil.Process().children()) <= before
