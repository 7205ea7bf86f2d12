"""Histograms of the metrics: vLLM's buckets, a histogram that counts one value many times in one call, and its text.

The buckets are those of today's vLLM, which contain all of vLLM 0.4's.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate

from prometheus_client import Histogram, generate_latest
from prometheus_client.utils import floatToGoString

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

    def totals(self) -> list[float]:
        """The values of its lines in Prometheus' text: of each bucket with those below it, their number, their sum."""
        buckets = list(accumulate(bucket.get() for bucket in self._buckets))
        return [*buckets, buckets[-1], self._sum.get()]


class HistogramText:
    """Prometheus' text of a histogram. Only the values change: the rest is the library's, written once.

    Nine in ten lines of /metrics are of histograms, and the library takes about 12 us of CPU time to write each.
    """

    def __init__(self, family: RepeatHistogram, labels: Mapping[str, str]) -> None:
        self._histogram = family.labels(**labels)
        lines = generate_latest(family).decode().splitlines()
        self._comments, samples = lines[:2], lines[2:]
        self._series = [line.rpartition(" ")[0] for line in samples]

    def write(self) -> str:
        """The lines of now."""
        values = map(floatToGoString, self._histogram.totals())
        lines = [f"{series} {value}" for series, value in zip(self._series, values, strict=True)]
        return "\n".join([*self._comments, *lines, ""])
