"""The text for Prometheus: what was counted, and the values that are read when it scrapes."""

from collections.abc import Iterator, Mapping

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from frontend.triton.kv_cache import KvCache

from .admission import Admission
from .metrics import Metrics


def to_text(metrics: Metrics, admission: Admission, kv_cache: KvCache | None) -> bytes:
    """Prometheus' text format, version 0.0.4. Without a `kv_cache` its metrics are left out."""
    metrics.steps.observe(metrics.num_prompt_tokens, metrics.num_generation_tokens)
    return generate_latest(_CurrentValues(metrics, admission, kv_cache)) + metrics.to_text()


class _CurrentValues(Collector):
    """The values that are read when Prometheus scrapes: queue, tokens, KV cache."""

    def __init__(self, metrics: Metrics, admission: Admission, kv_cache: KvCache | None) -> None:
        self._metrics, self._admission, self._kv_cache = metrics, admission, kv_cache

    def collect(self) -> Iterator[Metric]:
        yield self._gauge("num_requests_running", "Generations in the engine.", self._admission.num_running)
        yield self._gauge("num_requests_waiting", "Generations that wait for it.", self._admission.num_waiting)
        yield self._gauge("num_requests_swapped", "This engine swaps none.", 0)
        yield self._counter("num_preemptions", "This engine pauses none.", 0)
        yield from self._tokens()
        if self._kv_cache is not None:
            yield from self._cache(self._kv_cache)

    def _tokens(self) -> Iterator[Metric]:
        prompt, generation = self._metrics.num_prompt_tokens, self._metrics.num_generation_tokens
        yield self._counter("prompt_tokens", "Tokens of prompts.", prompt)
        yield self._counter("generation_tokens", "Tokens that were generated.", generation)
        for name, rate, total in (
            ("prompt", self._metrics.prompt_throughput, prompt),
            ("generation", self._metrics.generation_throughput, generation),
        ):
            yield self._gauge(f"avg_{name}_throughput_toks_per_s", "Since the last scrape.", rate.update(total))

    def _cache(self, cache: KvCache) -> Iterator[Metric]:
        for name in ("kv_cache_usage_perc", "gpu_cache_usage_perc"):  # today's name, and that of vLLM 0.4
            yield self._gauge(name, "Share of the KV cache that is in use; 1 is all.", cache.usage)
        yield self._gauge("cpu_cache_usage_perc", "This engine does not swap.", 0)
        sizes = {"block_size": str(cache.tokens_per_block), "num_gpu_blocks": str(cache.num_blocks)}
        info = Metric("vllm:cache_config", "Of the KV cache.", "info")
        info.add_sample("vllm:cache_config_info", {**self._labels, **sizes}, 1)
        yield info

    def _gauge(self, name: str, help_text: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"vllm:{name}", help_text, labels=tuple(self._labels))
        family.add_metric(tuple(self._labels.values()), value)
        return family

    def _counter(self, name: str, help_text: str, value: float) -> Metric:
        family = CounterMetricFamily(f"vllm:{name}", help_text, labels=tuple(self._labels))
        family.add_metric(tuple(self._labels.values()), value)
        return family

    @property
    def _labels(self) -> Mapping[str, str]:
        return self._metrics.labels
