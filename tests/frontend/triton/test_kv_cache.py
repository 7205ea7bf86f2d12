"""The context is as long as the engine's KV cache at most."""

import asyncio
from dataclasses import replace

import pytest
from aiohttp.test_utils import TestServer

from frontend.generation import Engine
from frontend.triton.client import open_triton
from frontend.triton.kv_cache import KvCache, fit_context
from frontend.triton.tensors import read_engine
from tests.frontend.fake_triton import FakeTriton

ENGINE = read_engine(FakeTriton().config())
BLOCKS = 'nv_trt_llm_kv_cache_block_metrics{{kv_cache_block_type="{}",model="openvino",version="1"}} {}\n'
METRICS = BLOCKS.format("max", 91) + BLOCKS.format("tokens_per", 32) + BLOCKS.format("used", 0)


def cache(num_blocks: int) -> KvCache:
    return KvCache(num_blocks=num_blocks, tokens_per_block=32, usage=0.0)


def test_a_smaller_cache_bounds_the_context(caplog: pytest.LogCaptureFixture) -> None:
    assert fit_context(ENGINE, cache(91)) == replace(ENGINE, max_seq_len=2912)
    assert caplog.messages == [
        "max_seq_len is 4096, and the engine's KV cache holds 2912 tokens: the context is 2912 tokens"
    ]


@pytest.mark.parametrize("num_blocks", [128, 10_000, 0], ids=["equal", "larger", "not known yet"])
def test_another_cache_leaves_the_context_as_it_is(num_blocks: int) -> None:
    assert fit_context(ENGINE, cache(num_blocks)) is ENGINE


@pytest.mark.parametrize(
    ("metrics", "max_seq_len"), [(METRICS, 2912), (None, 4096), ("", 4096)], ids=["told", "no metrics", "not told"]
)
def test_the_size_of_the_cache_is_read_at_start(metrics: str | None, max_seq_len: int) -> None:
    assert asyncio.run(engine_at_start(FakeTriton(metrics=metrics))).max_seq_len == max_seq_len


async def engine_at_start(triton: FakeTriton) -> Engine:
    async with TestServer(triton.application()) as server:
        url = str(server.make_url(""))
        metrics_url = str(server.make_url("/metrics"))
        async with open_triton(url, triton.model, startup_timeout_s=5, metrics_url=metrics_url) as opened:
            return opened.engine
