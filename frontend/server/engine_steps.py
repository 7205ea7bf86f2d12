"""How many tokens the engine computes in a step, estimated: Triton does not report its steps."""

import time

from .histograms import RepeatHistogram


class EngineSteps:
    """Fills vLLM's histogram `iteration_tokens_total`.

    A generation in the engine gets about one token in each step. So the steps of a while are the tokens generated in
    it, divided by the mean number of generations that were in the engine while there was any. The sum of the histogram
    is exact; the steps of one while count as equal.
    """

    def __init__(self, histogram: RepeatHistogram) -> None:
        self._histogram = histogram
        self._num_running = 0
        self._changed_at = time.monotonic()
        self._running_s = self._busy_s = 0.0
        self._num_prompt_tokens = self._num_generation_tokens = 0

    def change(self, by: int) -> None:
        """So many generations more, or less, are in the engine from now on."""
        now = time.monotonic()
        took_s, self._changed_at = now - self._changed_at, now
        self._running_s += self._num_running * took_s
        self._busy_s += took_s if self._num_running else 0.0
        self._num_running += by

    def observe(self, num_prompt_tokens: int, num_generation_tokens: int) -> None:
        """Count the steps since the last call. The arguments are totals since the start."""
        self.change(0)
        generated = num_generation_tokens - self._num_generation_tokens
        if not generated or not self._running_s:
            return
        steps = max(1, round(generated * self._busy_s / self._running_s))
        computed = generated + num_prompt_tokens - self._num_prompt_tokens
        self._histogram.observe_times(computed / steps, steps)
        self._num_prompt_tokens, self._num_generation_tokens = num_prompt_tokens, num_generation_tokens
        self._running_s = self._busy_s = 0.0
