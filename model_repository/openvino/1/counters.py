"""Triton's own counters of requests, completed by what its Python backend does not report.

That backend (2.51: python_be.cc, pb_metric_reporter.cc) reports a request when `execute` has returned: its time up to
then, and a success. A decoupled model has not even begun by then. So the rest of its time, and a failure, are added
here, to the same counters: a metric with the name and the labels of one that exists is that one (metric_family.cc of
Triton's core). A success cannot be taken back, and the statistics API cannot be reached: docs/operations.md says what
follows.
"""

import threading
import time
from collections import Counter

import triton_python_backend_utils as pb_utils

CANCELED, BACKEND = "CANCELED", "BACKEND"
"""Triton's reasons of failures: the client has left, and all that the model refuses or cannot complete."""

_DURATIONS = ("request", "queue", "compute_infer")
_NS_PER_US = 1000


class RequestCounters:
    """The counters of one model. `labels` are those of Triton: model and version. Any thread may call.

    What has been counted is sent to Triton by `flush`, as each increment is a message to its process.
    """

    def __init__(self, labels: dict[str, str]) -> None:
        self._lock = threading.Lock()
        self._pending: Counter[str] = Counter()
        names = [f"nv_inference_{part}_duration_us" for part in _DURATIONS]
        self._families = [_family(name) for name in (*names, "nv_inference_request_failure")]
        self._metrics = {
            part: family.Metric(labels=labels) for part, family in zip(_DURATIONS, self._families, strict=False)
        }
        for reason in (CANCELED, BACKEND):
            self._metrics[reason] = self._families[-1].Metric(labels={**labels, "reason": reason})

    def ended(self, since_ns: int, scheduled_ns: int, failure: str | None = None) -> None:
        """A request has ended, of which Triton has reported the time until `since_ns`.

        It was in a step of the engine from `scheduled_ns` on; 0 if it never was. Both are of the monotonic clock.
        """
        now_ns = time.monotonic_ns()
        waited_ns = (scheduled_ns or now_ns) - since_ns
        with self._lock:
            self._pending["request"] += now_ns - since_ns
            self._pending["queue"] += max(waited_ns, 0)
            self._pending["compute_infer"] += now_ns - since_ns - max(waited_ns, 0)
            if failure is not None:
                self._pending[failure] += 1

    def flush(self) -> None:
        """Send what was counted since the last call."""
        with self._lock:
            pending, self._pending = self._pending, Counter()
        for name, amount in pending.items():
            if amount:
                self._metrics[name].increment(amount / _NS_PER_US if name in _DURATIONS else amount)


def _family(name: str) -> "pb_utils.MetricFamily":
    """Triton's own; the description is that of the first who made it."""
    return pb_utils.MetricFamily(name=name, description="", kind=pb_utils.MetricFamily.COUNTER)
