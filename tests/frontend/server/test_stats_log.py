"""vLLM's line of throughput: word for word, while something runs and once after."""

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from frontend.server.load import Load, Totals
from frontend.server.stats_log import StatsLog
from frontend.triton.kv_cache import KvCache


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its only item is the time."""
    now = [100.0]
    monkeypatch.setattr("frontend.server.metrics.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


class Overview:
    """What the line is written of."""

    def __init__(self) -> None:
        self.num_running = self.num_waiting = self.num_prompt_tokens = self.num_generation_tokens = 0

    async def load(self) -> Load:
        totals = Totals(
            num_prompt_tokens=self.num_prompt_tokens, num_generation_tokens=self.num_generation_tokens
        )  # fmt: skip
        return Load(num_running=self.num_running, num_waiting=self.num_waiting, totals=totals)


def service(url: str = "") -> Any:
    return SimpleNamespace(
        overview=Overview(), triton=SimpleNamespace(model="openvino"), triton_metrics_url=url
    )  # fmt: skip


def test_the_line_is_vllms(
    clock: list[float], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fetch(url: str, model: str) -> KvCache:
        return KvCache(num_blocks=1000, tokens_per_block=32, usage=0.001)

    monkeypatch.setattr("frontend.server.stats_log.fetch_kv_cache", fetch)
    caplog.set_level(logging.INFO, "frontend")
    served = service("http://triton/metrics")
    stats = StatsLog(served)
    served.overview.num_prompt_tokens, served.overview.num_generation_tokens = 45, 14
    served.overview.num_running = 1
    clock[0] += 5
    asyncio.run(stats.write())
    assert caplog.messages == [
        "Avg prompt throughput: 9.0 tokens/s, Avg generation throughput: 2.8 tokens/s, Running: 1 reqs, "
        "Swapped: 0 reqs, Pending: 0 reqs, GPU KV cache usage: 0.1%, CPU KV cache usage: 0.0%"
    ]


def test_an_idle_server_is_silent_after_one_last_line(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "frontend")
    served = service()
    stats = StatsLog(served)

    def write() -> int:
        clock[0] += 5
        asyncio.run(stats.write())
        return len(caplog.messages)

    assert write() == 0
    served.overview.num_generation_tokens += 10  # began and ended between two lines
    assert [write(), write(), write()] == [1, 2, 2]
    served.overview.num_waiting = 1
    assert [write(), write()] == [3, 4]
    served.overview.num_waiting = 0
    assert [write(), write()] == [5, 5]
    assert "Avg generation throughput: 2.0 tokens/s" in caplog.messages[0]
    assert "Avg generation throughput: 0.0 tokens/s" in caplog.messages[1]


def test_usage_is_no_number_where_it_is_not_read(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "frontend")
    served = service()
    stats = StatsLog(served)
    served.overview.num_running = 1
    clock[0] += 5
    asyncio.run(stats.write())
    assert "GPU KV cache usage: nan%" in caplog.text
