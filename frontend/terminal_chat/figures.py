"""How fast an answer was."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one answer. Times in seconds since the request was sent; None if no token came."""

    num_tokens: int
    first_s: float | None
    last_s: float | None
    ending: str
    """Why it ended, unless it was complete."""

    def __str__(self) -> str:
        ending = f"; {self.ending}" if self.ending else ""
        if self.first_s is None or self.last_s is None:
            return f"no token{ending}"
        seconds = self.last_s - self.first_s
        # The first token took the time until the first; the rate is that of the others.
        rate = f", {(self.num_tokens - 1) / seconds:.1f} tokens/s" if self.num_tokens > 1 and seconds > 0 else ""
        unit = "token" if self.num_tokens == 1 else "tokens"
        return f"{self.num_tokens} {unit}, first after {self.first_s:.2f} s{rate}{ending}"
