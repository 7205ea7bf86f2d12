"""What the server as a whole does, for operators: values, and who returns them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Tokens since the start, and when the engine last generated any, by the monotonic clock of this machine."""

    num_prompt_tokens: int = 0
    num_generation_tokens: int = 0
    last_output_at: float = float("-inf")

    @classmethod
    def of(cls, parts: "Iterable[Totals]") -> "Totals":
        """Those of several processes together."""
        parts = list(parts)
        return cls(
            num_prompt_tokens=sum(part.num_prompt_tokens for part in parts),
            num_generation_tokens=sum(part.num_generation_tokens for part in parts),
            last_output_at=max((part.last_output_at for part in parts), default=float("-inf")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Generations in the engine and in the queue, and the totals."""

    num_running: int
    num_waiting: int
    totals: Totals


class Overview(Protocol):
    """Of one process, or with several workers of all of them."""

    async def load(self) -> Load:
        """The load now."""

    async def counts(self) -> bytes:
        """All that was counted, in Prometheus' text format."""
