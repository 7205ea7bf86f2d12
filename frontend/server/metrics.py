"""Counts and times of the server, under the names and labels of vLLM 0.4's metrics and of today's vLLM.

Dashboards and alerts of a vLLM server keep working. What vLLM does not have begins with `frontend_`. Nothing here runs
for each token: that is the hot path.
"""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from frontend.errors import FrontendError
from frontend.openai.job import Job
from frontend.text.detokenizer import AnswerDecoder

from .engine_steps import EngineSteps
from .histograms import (
    CHOICES,
    FIRST_TOKEN_S,
    GUIDE_S,
    NEXT_TOKEN_S,
    REQUEST_S,
    STEP_TOKENS,
    HistogramText,
    RepeatHistogram,
    token_buckets,
)
from .request_record import RequestRecord

disable_created_metrics()  # type: ignore[no-untyped-call]  # vLLM's metrics have no `_created` series


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
    of an answer does not show. A prompt counts once, whatever `n` is.

    `max_model_len` is the context in tokens. Callers are counted by name for `key_names` only, so that the number of
    series is bounded. `build` is the labels of `frontend_build_info`.
    """

    def __init__(
        self,
        model_name: str,
        max_model_len: int,
        *,
        key_names: Collection[str] = (),
        build: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.labels = {"model_name": model_name, "engine": "0"}
        self._histograms: list[HistogramText] = []
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        Info("frontend_build", "What runs here.", registry=self._registry).info(dict(build))
        self.prompt_throughput, self.generation_throughput = Rate(), Rate()
        self._running: set[GenerationClock] = set()
        self._num_prompt_tokens = self._num_generation_tokens = 0
        self._key_names = frozenset(key_names)
        self._add_times()
        self._add_sizes(token_buckets(max_model_len))
        self._add_own()

    def _add_times(self) -> None:
        add = self._histogram
        self.time_to_first_token = add("time_to_first_token_seconds", "From a request on.", FIRST_TOKEN_S)
        self.time_per_output_token = add("time_per_output_token_seconds", "From token to token.", NEXT_TOKEN_S)
        self.inter_token_latency = add("inter_token_latency_seconds", "The same; today's name.", NEXT_TOKEN_S)
        self.request_time_per_output_token = add(
            "request_time_per_output_token_seconds", "The mean of each answer.", NEXT_TOKEN_S
        )
        self.e2e_request_latency = add("e2e_request_latency_seconds", "Of complete answers.", REQUEST_S)
        self.queue_time = add("request_queue_time_seconds", "Waiting for the engine.", REQUEST_S)
        self.inference_time = add("request_inference_time_seconds", "In the engine.", REQUEST_S)
        self.prefill_time = add("request_prefill_time_seconds", "In the engine, to the first token.", REQUEST_S)
        self.decode_time = add("request_decode_time_seconds", "From the first token on.", REQUEST_S)

    def _add_sizes(self, tokens: Sequence[int]) -> None:
        add = self._histogram
        self.prompt_tokens = add("request_prompt_tokens", "Of each prompt.", tokens)
        self.generation_tokens = add("request_generation_tokens", "Of each answer.", tokens)
        self.longest_tokens = add("request_max_num_generation_tokens", "Of the longest of `n` answers.", tokens)
        self.params_max_tokens = add("request_params_max_tokens", "The limit of each answer.", tokens)
        self.params_n = add("request_params_n", "Answers to each prompt.", CHOICES)
        self.params_best_of = add("request_params_best_of", "The same, as there is no best_of.", CHOICES)
        self.steps = EngineSteps(add("iteration_tokens_total", "Of an engine step, estimated.", STEP_TOKENS))
        self.request_success = Counter(
            "vllm:request_success", "Complete answers.", ("finished_reason", *self.labels), registry=self._registry
        )

    def _add_own(self) -> None:
        registry = self._registry
        self.errors = Counter("frontend_errors", "Refusals and failures.", ("status", "code"), registry=registry)
        self.cancelled = Counter("frontend_requests_cancelled", "By their clients.", registry=registry)
        self.guide_compile = Histogram(
            "frontend_guide_compile_seconds", "Waiting for a compiler included.", buckets=GUIDE_S, registry=registry
        )
        self.guide_failures = Counter(
            "frontend_guide_failures", "Guides that were refused.", ("status",), registry=registry
        )
        self.key_requests = Counter(
            "frontend_key_requests", "Of the keys of the key file.", ("key", "status"), registry=registry
        )
        self.key_tokens = Counter(
            "frontend_key_tokens", "`kind` is prompt or generation.", ("key", "kind"), registry=registry
        )

    def _histogram(self, name: str, help_text: str, buckets: Sequence[float]) -> RepeatHistogram:
        family = RepeatHistogram(f"vllm:{name}", help_text, tuple(self.labels), buckets=buckets, registry=None)
        self._histograms.append(HistogramText(family, self.labels))
        return family.labels(**self.labels)

    def to_text(self) -> bytes:
        """All that was counted, in Prometheus' text format."""
        histograms = "".join([histogram.write() for histogram in self._histograms])
        return histograms.encode() + generate_latest(self._registry)

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of all prompts that the engine has processed."""
        return self._num_prompt_tokens + sum(clock.num_prompt_tokens for clock in self._running)

    @property
    def num_generation_tokens(self) -> int:
        """Tokens of all answers so far. Those of running answers are summed here, not counted as they come."""
        return self._num_generation_tokens + sum(clock.num_completion_tokens for clock in self._running)

    def clock(self, decoder: AnswerDecoder, arrived_at: float, *, counts_prompt: bool = True) -> "GenerationClock":
        """A clock for one generation, which is about to be queued. Its request arrived at `arrived_at`, monotonic."""
        return GenerationClock(self, decoder, arrived_at, counts_prompt=counts_prompt)

    @contextmanager
    def count(self, clocks: Sequence["GenerationClock"]) -> Iterator[None]:
        """Count the tokens of these generations, while they run and afterwards."""
        self._running.update(clocks)
        try:
            yield
        finally:
            self._running.difference_update(clocks)
            for clock in clocks:
                clock.stop()
            self._num_prompt_tokens += sum(clock.num_prompt_tokens for clock in clocks)
            self._num_generation_tokens += sum(clock.num_completion_tokens for clock in clocks)

    def finish_job(self, job: Job, clocks: Sequence["GenerationClock"]) -> None:
        """All generations of a job are complete."""
        counts = [clock.num_completion_tokens for clock in clocks]
        for prompt, begin in zip(job.prompts, range(0, len(counts), job.num_choices), strict=True):
            self.prompt_tokens.observe(len(prompt))
            self.longest_tokens.observe(max(counts[begin : begin + job.num_choices]))
            self.params_n.observe(job.num_choices)
            self.params_best_of.observe(job.num_choices)
        for request, count in zip(job.requests, counts, strict=True):
            self.generation_tokens.observe(count)
            self.params_max_tokens.observe(request.sampling_params.max_tokens)

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """Count the time that a guide is compiled in, and whether that fails."""
        began_at = time.monotonic()
        try:
            yield
        except FrontendError as error:
            self.guide_failures.labels(status=str(error.status)).inc()
            raise
        finally:
            self.guide_compile.observe(time.monotonic() - began_at)

    def count_error(self, error: FrontendError) -> None:
        """A request is answered with this error."""
        self.errors.labels(status=str(error.status), code=error.code or "").inc()

    def count_answer(self, record: RequestRecord) -> None:
        """A request has ended."""
        if record.status == 499:
            self.cancelled.inc()
        elif record.error is not None:
            self.count_error(record.error)
        if record.key in self._key_names:
            self.key_requests.labels(key=record.key, status=str(record.status)).inc()
            if record.generated is not None and record.generated.first_token_s is not None:
                self.key_tokens.labels(key=record.key, kind="prompt").inc(record.generated.num_prompt_tokens)
                self.key_tokens.labels(key=record.key, kind="generation").inc(record.generated.num_completion_tokens)


class GenerationClock:
    """The times of one generation. `first_token_at` is None until there is a token."""

    def __init__(
        self, metrics: Metrics, decoder: AnswerDecoder, arrived_at: float, *, counts_prompt: bool = True
    ) -> None:
        self._metrics = metrics
        self._decoder = decoder
        self._arrived_at = arrived_at
        self._counts_prompt = counts_prompt
        self._queued_at = time.monotonic()
        self._started_at: float | None = None
        self._is_running = False
        self.first_token_at: float | None = None

    def start(self) -> None:
        """The engine gets the generation."""
        self._started_at = time.monotonic()
        self._is_running = True
        self._metrics.steps.change(1)

    def stop(self) -> None:
        """The engine has it no longer, if it has had it."""
        if self._is_running:
            self._is_running = False
            self._metrics.steps.change(-1)

    def grew_to(self, num_tokens: int) -> None:
        """The answer has `num_tokens` tokens. Need not be called again after the first token."""
        if num_tokens:
            self.first_token_at = time.monotonic()
            self._metrics.time_to_first_token.observe(self.first_token_at - self._arrived_at)

    def finish(self) -> None:
        """The answer is complete. Not called for one that failed or was cancelled."""
        now, metrics = time.monotonic(), self._metrics
        self.stop()
        finish_reason = self._decoder.outcome.ending.finish_reason
        metrics.request_success.labels(finished_reason=finish_reason, **metrics.labels).inc()
        metrics.e2e_request_latency.observe(now - self._arrived_at)
        if self._started_at is not None:
            metrics.queue_time.observe(self._started_at - self._queued_at)
            metrics.inference_time.observe(now - self._started_at)
            metrics.prefill_time.observe((self.first_token_at or now) - self._started_at)
        if self.first_token_at is not None:
            self._observe_tokens(now - self.first_token_at, self.num_completion_tokens - 1)

    def _observe_tokens(self, took_s: float, num_following: int) -> None:
        """`took_s` is the time of the tokens after the first."""
        metrics = self._metrics
        metrics.decode_time.observe(took_s)
        if num_following:
            mean_s = took_s / num_following
            metrics.request_time_per_output_token.observe(mean_s)
            metrics.time_per_output_token.observe_times(mean_s, num_following)
            metrics.inter_token_latency.observe_times(mean_s, num_following)

    @property
    def num_completion_tokens(self) -> int:
        """Tokens of the answer so far."""
        return self._decoder.outcome.usage.num_completion_tokens

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the prompt, once the engine has processed it: that is when the first token comes.

        0 if another generation of the same prompt counts them.
        """
        counts = self._counts_prompt and self.first_token_at is not None
        return self._decoder.outcome.usage.num_prompt_tokens if counts else 0
