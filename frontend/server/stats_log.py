"""vLLM's line of throughput and load, word for word as in vLLM 0.4: every 5 s while anything runs, and once after."""

import asyncio
import logging
import math

from frontend.triton.kv_cache import fetch_kv_cache

from .metrics import Rate
from .service import Service

_log = logging.getLogger(__name__)

_INTERVAL_S = 5.0


class StatsLog:
    """Writes the line for one service. An idle server writes none."""

    def __init__(self, service: Service, interval_s: float = _INTERVAL_S) -> None:
        self._service = service
        self._interval_s = interval_s
        self._prompt_throughput, self._generation_throughput = Rate(), Rate()
        self._was_busy = False

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            await self.write()

    async def write(self) -> None:
        """The line, if something has run since the last call or the call before it."""
        load = await self._service.overview.load()
        prompt = self._prompt_throughput.update(load.totals.num_prompt_tokens)
        generation = self._generation_throughput.update(load.totals.num_generation_tokens)
        running, waiting = load.num_running, load.num_waiting
        is_busy = bool(prompt or generation or running or waiting)
        if is_busy or self._was_busy:
            usage = await self._kv_cache_usage()
            _log.info(
                "Avg prompt throughput: %.1f tokens/s, Avg generation throughput: %.1f tokens/s, Running: %d reqs, "
                "Swapped: 0 reqs, Pending: %d reqs, GPU KV cache usage: %.1f%%, CPU KV cache usage: 0.0%%",
                prompt, generation, running, waiting, usage * 100,
                extra={
                    "event": "stats", "prompt_tokens_per_s": round(prompt, 1),
                    "generation_tokens_per_s": round(generation, 1), "running": running, "pending": waiting,
                    "kv_cache_usage": None if math.isnan(usage) else usage,
                },
            )  # fmt: skip
        self._was_busy = is_busy

    async def _kv_cache_usage(self) -> float:
        """The share in use; not a number where Triton's metrics are not read, or do not have it."""
        url = self._service.triton_metrics_url
        kv_cache = await fetch_kv_cache(url, self._service.triton.model) if url else None
        return math.nan if kv_cache is None else kv_cache.usage
