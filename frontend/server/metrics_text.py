"""The metrics as Prometheus reads them, under vLLM's names (0.4): dashboards and alerts need not change.

Refuses to do I/O, and to measure: it is handed the numbers.
"""

from collections.abc import Iterator, Mapping

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from frontend.triton.kv_cache import KvCache

from .admission import Admission
from .metrics import Histogram, Metrics


def to_text(metrics: Metrics, admission: Admission, kv_cache: KvCache | None, model_name: str) -> bytes:
    """Prometheus' text format, version 0.0.4. Without a `kv_cache` nothing is said of it."""
    return generate_latest(_Families(metrics, admission, kv_cache, {"model_name": model_name}))


class _Families(Collector):
    """`labels` are on every sample."""

    def __init__(
        self, metrics: Metrics, admission: Admission, kv_cache: KvCache | None, labels: Mapping[str, str]
    ) -> None:
        self._metrics, self._admission, self._kv_cache, self._labels = metrics, admission, kv_cache, labels

    def collect(self) -> Iterator[Metric]:
        yield from self._queue()
        yield from self._tokens()
        yield from self._answers()
        if self._kv_cache is not None:
            yield from self._cache(self._kv_cache)

    def _queue(self) -> Iterator[Metric]:
        yield self._gauge("num_requests_running", "Generations in the engine.", self._admission.num_running)
        yield self._gauge("num_requests_waiting", "Generations that wait for it.", self._admission.num_waiting)
        yield self._gauge("num_requests_swapped", "This engine swaps none.", 0)

    def _tokens(self) -> Iterator[Metric]:
        prompt, generation = self._metrics.num_prompt_tokens, self._metrics.num_generation_tokens
        yield self._counter("prompt_tokens", "Tokens of prompts.", prompt)
        yield self._counter("generation_tokens", "Tokens that were generated.", generation)
        for name, rate, total in (
            ("prompt", self._metrics.prompt_throughput, prompt),
            ("generation", self._metrics.generation_throughput, generation),
        ):
            yield self._gauge(f"avg_{name}_throughput_toks_per_s", "Since the last scrape.", rate.update(total))

    def _answers(self) -> Iterator[Metric]:
        metrics = self._metrics
        finished = CounterMetricFamily("vllm:request_success", "Complete answers.", labels=("finished_reason",))
        for reason, count in metrics.num_finished.items():
            finished.add_metric((reason,), count)
        yield self._labelled(finished)
        yield self._histogram("time_to_first_token_seconds", "From a request on.", metrics.time_to_first_token)
        yield self._histogram("time_per_output_token_seconds", "From token to token.", metrics.time_per_output_token)
        yield self._histogram("e2e_request_latency_seconds", "Of whole answers.", metrics.e2e_request_latency)

    def _cache(self, cache: KvCache) -> Iterator[Metric]:
        yield self._gauge("gpu_cache_usage_perc", "Share of the KV cache that is in use; 1 is all.", cache.usage)
        yield self._gauge("cpu_cache_usage_perc", "This engine does not swap.", 0)
        sizes = {"block_size": str(cache.tokens_per_block), "num_gpu_blocks": str(cache.num_blocks)}
        info = Metric("vllm:cache_config", "Of the KV cache.", "info")
        info.add_sample("vllm:cache_config_info", sizes, 1)
        yield self._labelled(info)

    def _gauge(self, name: str, meaning: str, value: float) -> Metric:
        return self._labelled(GaugeMetricFamily(f"vllm:{name}", meaning, value))

    def _counter(self, name: str, meaning: str, value: float) -> Metric:
        return self._labelled(CounterMetricFamily(f"vllm:{name}", meaning, value))

    def _histogram(self, name: str, meaning: str, histogram: Histogram) -> Metric:
        return self._labelled(HistogramMetricFamily(f"vllm:{name}", meaning, histogram.buckets, histogram.sum))

    def _labelled(self, family: Metric) -> Metric:
        family.samples = [sample._replace(labels={**self._labels, **sample.labels}) for sample in family.samples]
        return family
