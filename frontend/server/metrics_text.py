"""The text for Prometheus: what was counted, and the values that are read when it scrapes."""

from collections.abc import Iterator, Mapping

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from frontend.triton.kv_cache import KvCache

from .metrics import Metrics


def counts_text(metrics: Metrics) -> bytes:
    """What one process has counted, in Prometheus' text format, version 0.0.4."""
    metrics.steps.observe(metrics.num_prompt_tokens, metrics.num_generation_tokens)
    return generate_latest(_Tokens(metrics)) + metrics.to_text()


def values_text(labels: Mapping[str, str], num_running: int, num_waiting: int, kv_cache: KvCache | None) -> bytes:
    """The values of now, which the processes of a server share. Without a `kv_cache` its metrics are left out."""
    return generate_latest(_Values(labels, num_running, num_waiting, kv_cache))


class _Families:
    """Makes metrics with vLLM's prefix and labels."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        self.labels = labels

    def gauge(self, name: str, help_text: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"vllm:{name}", help_text, labels=tuple(self.labels))
        family.add_metric(tuple(self.labels.values()), value)
        return family

    def counter(self, name: str, help_text: str, value: float) -> Metric:
        family = CounterMetricFamily(f"vllm:{name}", help_text, labels=tuple(self.labels))
        family.add_metric(tuple(self.labels.values()), value)
        return family


class _Tokens(Collector):
    """Tokens so far, and how fast they have come since the last scrape."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics, self._families = metrics, _Families(metrics.labels)

    def collect(self) -> Iterator[Metric]:
        families, prompt, generation = (
            self._families, self._metrics.num_prompt_tokens, self._metrics.num_generation_tokens,
        )  # fmt: skip
        yield families.counter("prompt_tokens", "Tokens of prompts.", prompt)
        yield families.counter("generation_tokens", "Tokens that were generated.", generation)
        for name, rate, total in (
            ("prompt", self._metrics.prompt_throughput, prompt),
            ("generation", self._metrics.generation_throughput, generation),
        ):
            yield families.gauge(f"avg_{name}_throughput_toks_per_s", "Since the last scrape.", rate.update(total))


class _Values(Collector):
    """Queue and KV cache."""

    def __init__(self, labels: Mapping[str, str], num_running: int, num_waiting: int, kv_cache: KvCache | None) -> None:
        self._families = _Families(labels)
        self._num_running, self._num_waiting, self._kv_cache = num_running, num_waiting, kv_cache

    def collect(self) -> Iterator[Metric]:
        families = self._families
        yield families.gauge("num_requests_running", "Generations in the engine.", self._num_running)
        yield families.gauge("num_requests_waiting", "Generations that wait for it.", self._num_waiting)
        yield families.gauge("num_requests_swapped", "This engine swaps none.", 0)
        yield families.counter("num_preemptions", "This engine pauses none.", 0)
        if self._kv_cache is not None:
            yield from self._cache(self._kv_cache)

    def _cache(self, cache: KvCache) -> Iterator[Metric]:
        families = self._families
        for name in ("kv_cache_usage_perc", "gpu_cache_usage_perc"):  # today's name, and that of vLLM 0.4
            yield families.gauge(name, "Share of the KV cache that is in use; 1 is all.", cache.usage)
        yield families.gauge("cpu_cache_usage_perc", "This engine does not swap.", 0)
        sizes = {"block_size": str(cache.tokens_per_block), "num_gpu_blocks": str(cache.num_blocks)}
        info = Metric("vllm:cache_config", "Of the KV cache.", "info")
        info.add_sample("vllm:cache_config_info", {**families.labels, **sizes}, 1)
        yield info
