"""What the server has done since it began: tokens, answers, and how long they took.

Refuses to know Prometheus: metrics_text.py does. Refuses to do anything for each token: that is the hot path.
"""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate

from frontend.generation import FinishReason
from frontend.text.detokenizer import AnswerDecoder

_FIRST_TOKEN_BOUNDS_S = (.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10)  # fmt: skip
_NEXT_TOKEN_BOUNDS_S = (.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5)  # fmt: skip
_ANSWER_BOUNDS_S = (1, 2.5, 5, 10, 15, 20, 30, 40, 50, 60)
"""All three as vLLM 0.4 has them, so that old and new counts can be added up."""


class Histogram:
    """How many observations were up to each bound."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """Count `value` that many times."""
        self._counts[bisect_left(self._bounds, value)] += count
        self.sum += value * count

    @property
    def buckets(self) -> list[tuple[str, int]]:
        """Cumulative, as Prometheus wants them; the last bound is +Inf."""
        bounds = [*map(str, map(float, self._bounds)), "+Inf"]
        return list(zip(bounds, accumulate(self._counts), strict=True))


class Rate:
    """How fast a total grew, per second, since that was last asked."""

    def __init__(self) -> None:
        self._total, self._at = 0, time.monotonic()

    def update(self, total: int) -> float:
        """The mean between the last call and this one."""
        now = time.monotonic()
        grown, took_s = total - self._total, now - self._at
        self._total, self._at = total, now
        return grown / took_s if took_s > 0 else 0.0


class Metrics:
    """Names and meanings are those of vLLM's metrics; times in seconds. One generation is what vLLM calls a request.

    The tokens of an answer are taken to have followed one another evenly: sums and counts are exact, and a pause in the
    middle of an answer is not seen.
    """

    def __init__(self) -> None:
        self.num_finished: Counter[FinishReason] = Counter()
        self.time_to_first_token = Histogram(_FIRST_TOKEN_BOUNDS_S)
        self.time_per_output_token = Histogram(_NEXT_TOKEN_BOUNDS_S)
        self.e2e_request_latency = Histogram(_ANSWER_BOUNDS_S)
        self.prompt_throughput, self.generation_throughput = Rate(), Rate()
        self._running: set[GenerationClock] = set()
        self._num_prompt_tokens = self._num_generation_tokens = 0

    @property
    def num_prompt_tokens(self) -> int:
        """Of all prompts that have been worked out."""
        return self._num_prompt_tokens + sum(clock.num_prompt_tokens for clock in self._running)

    @property
    def num_generation_tokens(self) -> int:
        """Of all answers so far, those that go on included: asked of them now, and not counted at every token."""
        return self._num_generation_tokens + sum(clock.num_completion_tokens for clock in self._running)

    @contextmanager
    def generation(self, decoder: AnswerDecoder, begin: float) -> "Iterator[GenerationClock]":
        """Follow one generation; its request arrived at `begin`, by the monotonic clock. A failure is no answer."""
        clock = GenerationClock(decoder, begin, self.time_to_first_token)
        self._running.add(clock)
        try:
            yield clock
            self._finished(clock)
        finally:
            self._running.remove(clock)
            self._num_prompt_tokens += clock.num_prompt_tokens
            self._num_generation_tokens += clock.num_completion_tokens

    def _finished(self, clock: "GenerationClock") -> None:
        now = time.monotonic()
        self.num_finished[clock.finish_reason] += 1
        self.e2e_request_latency.observe(now - clock.begin)
        following = clock.num_completion_tokens - 1
        if clock.first_token_at is not None and following:
            self.time_per_output_token.observe((now - clock.first_token_at) / following, following)


class GenerationClock:
    """What is known of one generation; `Metrics.generation` makes it."""

    def __init__(self, decoder: AnswerDecoder, begin: float, time_to_first_token: Histogram) -> None:
        self._decoder = decoder
        self._time_to_first_token = time_to_first_token
        self.begin = begin
        self.first_token_at: float | None = None

    def arrived(self, num_tokens: int) -> None:
        """The answer has that many tokens by now; needed until there is one."""
        if num_tokens:
            self.first_token_at = time.monotonic()
            self._time_to_first_token.observe(self.first_token_at - self.begin)

    @property
    def finish_reason(self) -> FinishReason:
        """Of an answer that is over."""
        return self._decoder.outcome.ending.finish_reason

    @property
    def num_completion_tokens(self) -> int:
        """So far."""
        return self._decoder.outcome.usage.num_completion_tokens

    @property
    def num_prompt_tokens(self) -> int:
        """Once there is a token: before, the prompt waits or is being worked out."""
        return self._decoder.outcome.usage.num_prompt_tokens if self.first_token_at is not None else 0
