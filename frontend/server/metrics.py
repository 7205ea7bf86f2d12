"""Counts and times of the server, and their text for Prometheus under the names of vLLM 0.4's metrics.

Dashboards and alerts of a vLLM server keep working. Nothing here runs for each token: that is the hot path.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from frontend.text.detokenizer import AnswerDecoder
from frontend.triton.kv_cache import KvCache

from .admission import Admission

disable_created_metrics()  # type: ignore[no-untyped-call]  # vLLM 0.4's metrics have no `_created` series

_FIRST_TOKEN_BUCKETS_S = (.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10)  # fmt: skip
_NEXT_TOKEN_BUCKETS_S = (.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5)  # fmt: skip
_ANSWER_BUCKETS_S = (1, 2.5, 5, 10, 15, 20, 30, 40, 50, 60)
"""All three are vLLM 0.4's, so that counts of the two servers can be added up."""


class RepeatHistogram(Histogram):
    """prometheus-client's histogram, which can also count one value many times in one call."""

    def observe_times(self, amount: float, count: int) -> None:
        """The same as `count` calls of `observe(amount)`."""
        self._sum.inc(amount * count)
        for bound, bucket in zip(self._upper_bounds, self._buckets, strict=True):
            if amount <= bound:
                bucket.inc(count)
                break


class Rate:
    """How fast a total grows, per second."""

    def __init__(self) -> None:
        self._total, self._at = 0, time.monotonic()

    def update(self, total: int) -> float:
        """The mean rate between the last call and this one."""
        now = time.monotonic()
        grown, took_s = total - self._total, now - self._at
        self._total, self._at = total, now
        return grown / took_s if took_s > 0 else 0.0


class Metrics:
    """What the server has done since it started. Times are in seconds. One generation is what vLLM calls a request.

    The tokens of an answer count as evenly spread over its time: sums and counts are exact, but a pause in the middle
    of an answer does not show.
    """

    def __init__(self, model_name: str) -> None:
        self.labels = {"model_name": model_name}
        self.registry = CollectorRegistry()
        self.time_to_first_token = self._histogram(
            "time_to_first_token_seconds", "From a request on.", _FIRST_TOKEN_BUCKETS_S
        )
        self.time_per_output_token = self._histogram(
            "time_per_output_token_seconds", "From token to token.", _NEXT_TOKEN_BUCKETS_S
        )
        self.e2e_request_latency = self._histogram(
            "e2e_request_latency_seconds", "Of complete answers.", _ANSWER_BUCKETS_S
        )
        self.request_success = Counter(
            "vllm:request_success", "Complete answers.", ("finished_reason", *self.labels), registry=self.registry
        )
        self.prompt_throughput, self.generation_throughput = Rate(), Rate()
        self._running: set[GenerationClock] = set()
        self._num_prompt_tokens = self._num_generation_tokens = 0

    def _histogram(self, name: str, help_text: str, buckets: Sequence[float]) -> RepeatHistogram:
        family = RepeatHistogram(f"vllm:{name}", help_text, tuple(self.labels), buckets=buckets, registry=self.registry)
        return family.labels(**self.labels)

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of all prompts that the engine has processed."""
        return self._num_prompt_tokens + sum(clock.num_prompt_tokens for clock in self._running)

    @property
    def num_generation_tokens(self) -> int:
        """Tokens of all answers so far. Those of running answers are summed here, not counted as they come."""
        return self._num_generation_tokens + sum(clock.num_completion_tokens for clock in self._running)

    def clock(self, decoder: AnswerDecoder, arrived_at: float) -> "GenerationClock":
        """A clock for one generation, whose request arrived at `arrived_at` by the monotonic clock."""
        return GenerationClock(self, decoder, arrived_at)

    @contextmanager
    def count(self, clocks: Sequence["GenerationClock"]) -> Iterator[None]:
        """Count the tokens of these generations, while they run and afterwards."""
        self._running.update(clocks)
        try:
            yield
        finally:
            self._running.difference_update(clocks)
            self._num_prompt_tokens += sum(clock.num_prompt_tokens for clock in clocks)
            self._num_generation_tokens += sum(clock.num_completion_tokens for clock in clocks)


class GenerationClock:
    """The times of one generation. `first_token_at` is None until there is a token."""

    def __init__(self, metrics: Metrics, decoder: AnswerDecoder, arrived_at: float) -> None:
        self._metrics = metrics
        self._decoder = decoder
        self._arrived_at = arrived_at
        self.first_token_at: float | None = None

    def grew_to(self, num_tokens: int) -> None:
        """The answer has `num_tokens` tokens. Need not be called again after the first token."""
        if num_tokens:
            self.first_token_at = time.monotonic()
            self._metrics.time_to_first_token.observe(self.first_token_at - self._arrived_at)

    def finish(self) -> None:
        """The answer is complete. Not called for one that failed or was cancelled."""
        now, metrics = time.monotonic(), self._metrics
        finish_reason = self._decoder.outcome.ending.finish_reason
        metrics.request_success.labels(finished_reason=finish_reason, **metrics.labels).inc()
        metrics.e2e_request_latency.observe(now - self._arrived_at)
        following = self.num_completion_tokens - 1
        if self.first_token_at is not None and following:
            metrics.time_per_output_token.observe_times((now - self.first_token_at) / following, following)

    @property
    def num_completion_tokens(self) -> int:
        """Tokens of the answer so far."""
        return self._decoder.outcome.usage.num_completion_tokens

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the prompt, once the engine has processed it: that is when the first token comes."""
        return self._decoder.outcome.usage.num_prompt_tokens if self.first_token_at is not None else 0


def to_text(metrics: Metrics, admission: Admission, kv_cache: KvCache | None) -> bytes:
    """Prometheus' text format, version 0.0.4. Without a `kv_cache` its metrics are left out."""
    return generate_latest(_CurrentValues(metrics, admission, kv_cache)) + generate_latest(metrics.registry)


class _CurrentValues(Collector):
    """The values that are read when Prometheus scrapes: queue, tokens, KV cache."""

    def __init__(self, metrics: Metrics, admission: Admission, kv_cache: KvCache | None) -> None:
        self._metrics, self._admission, self._kv_cache = metrics, admission, kv_cache

    def collect(self) -> Iterator[Metric]:
        yield self._gauge("num_requests_running", "Generations in the engine.", self._admission.num_running)
        yield self._gauge("num_requests_waiting", "Generations that wait for it.", self._admission.num_waiting)
        yield self._gauge("num_requests_swapped", "This engine swaps none.", 0)
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
        yield self._gauge("gpu_cache_usage_perc", "Share of the KV cache that is in use; 1 is all.", cache.usage)
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
