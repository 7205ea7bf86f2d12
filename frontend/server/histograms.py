"""Histograms of the metrics: vLLM's buckets, and a histogram that counts one value many times in one call.

The buckets are those of today's vLLM, which contain all of vLLM 0.4's.
"""

from collections.abc import Sequence

from prometheus_client import Histogram

FIRST_TOKEN_S = (
    .001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
)  # fmt: skip
NEXT_TOKEN_S = (.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)  # fmt: skip
REQUEST_S = (
    .3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
)  # fmt: skip
CHOICES = (1, 2, 5, 10, 20)
STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
GUIDE_S = (.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30)  # fmt: skip
"""Of this server only."""


def token_buckets(most: int) -> Sequence[int]:
    """vLLM's buckets for numbers of tokens up to `most`: 1, 2, 5, 10, 20, 50, ..."""
    powers = [10**exponent for exponent in range(len(str(most)))]
    return [bound for power in powers for digit in (1, 2, 5) if (bound := digit * power) <= most]


class RepeatHistogram(Histogram):
    """prometheus-client's histogram, which can also count one value many times in one call."""

    def observe_times(self, amount: float, count: int) -> None:
        """The same as `count` calls of `observe(amount)`."""
        self._sum.inc(amount * count)
        for bound, bucket in zip(self._upper_bounds, self._buckets, strict=True):
            if amount <= bound:
                bucket.inc(count)
                break
