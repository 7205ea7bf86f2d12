"""What one process does, for operators."""

from frontend.triton.client import TritonClient

from .admission import Admission
from .load import Load, Totals
from .metrics import Metrics
from .metrics_text import counts_text


class OwnCounts:
    """What this process has counted."""

    def __init__(self, metrics: Metrics, triton: TritonClient) -> None:
        self._metrics, self._triton = metrics, triton

    def totals(self) -> Totals:
        """The totals now."""
        return Totals(
            num_prompt_tokens=self._metrics.num_prompt_tokens,
            num_generation_tokens=self._metrics.num_generation_tokens,
            last_output_at=self._triton.last_output_at,
        )

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return counts_text(self._metrics)


class OwnOverview:
    """The overview of a server with one process."""

    def __init__(self, own: OwnCounts, admission: Admission) -> None:
        self._own, self._admission = own, admission

    async def load(self) -> Load:
        """See `Overview`."""
        admission = self._admission
        return Load(num_running=admission.num_running, num_waiting=admission.num_waiting, totals=self._own.totals())

    async def counts(self) -> bytes:
        """See `Overview`."""
        return self._own.text()
