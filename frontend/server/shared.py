"""What the worker processes of one server share: the queue, the limits of callers, and what operators see.

`Alone` is for a server with one process; frontend/workers has the other.
"""

from typing import Protocol

from frontend.settings import Settings
from frontend.triton.token_budget import Budget, TokenBudget

from .admission import Admission, SlotQueue
from .caller_limits import CallerLimits, RequestLimits
from .load import Overview
from .overview import OwnCounts, OwnOverview


class Shared(Protocol):
    """The shared parts. `to_budget` is called before `start`, and each once."""

    limits: RequestLimits

    def to_budget(self, num_tokens: int) -> Budget:
        """The budget of requests for alternatives."""

    async def start(self, max_running: int, own: OwnCounts) -> tuple[SlotQueue, Overview]:
        """The queue in front of an engine with `max_running` slots, when all processes may serve.

        `own` is what this process counts.
        """


class Alone:
    """The parts of a server with one process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.limits: RequestLimits = CallerLimits(settings.rate_limit, settings.max_requests_per_key)

    def to_budget(self, num_tokens: int) -> Budget:
        """See `Shared`."""
        return TokenBudget(num_tokens)

    async def start(self, max_running: int, own: OwnCounts) -> tuple[SlotQueue, Overview]:
        """See `Shared`."""
        admission = Admission(max_running, self._settings.max_queue_length, self._settings.queue_full_status)
        return admission, OwnOverview(own, admission)
