"""What is known of one request while it is answered: its line of the log, its counts and its trace are made of it at
the end.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from starlette.types import Scope

from frontend.errors import FrontendError
from frontend.openai.job import Job

if TYPE_CHECKING:
    from opentelemetry.trace import Span

Step = Literal["read", "tokenize", "compile", "queue", "first_token", "decode"]
"""What is done for a request, one after the other: its body is read; checked and tokenized; its guide is compiled; it
waits for the engine; the engine processes the prompt; the engine generates. Of several answers the first that starts
ends `queue`, and the first token of any ends `first_token`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """What a reply took, all its answers together. Times are in seconds; None where there is no such time.

    `id` is that of the reply. `finish_reason` is empty if the reply is not complete. A prompt counts once, whatever
    `n` is. `num_cached_tokens` is None unless the engine reports it. `first_token_s` counts from the arrival of the
    request, `tokens_per_s` from the first token.
    """

    id: str
    finish_reason: str
    num_prompt_tokens: int
    num_completion_tokens: int
    num_cached_tokens: int | None
    first_token_s: float | None
    tokens_per_s: float | None


@dataclass(frozen=True, slots=True)
class Trace:
    """A request's span, which begins `began_ns` after 1970, and the headers that name it to the engine."""

    span: "Span"
    began_ns: int
    headers: Mapping[str, str]


@dataclass(slots=True, kw_only=True)
class RequestRecord:
    """Filled in by the steps of a request. `arrived_at` is by the monotonic clock, `took_s` in seconds.

    `path` is percent-encoded. `key` is the name of the API key. `status` 0 means that nothing was answered, 499 that
    the client disconnected. A stream that ends with an error has the error's status here; its client has seen 200.
    `steps` has when each step began, by the monotonic clock, in their order.
    """

    method: str
    path: str
    address: str
    arrived_at: float
    took_s: float = 0.0
    status: int = 0
    key: str | None = None
    error: FrontendError | None = None
    generated: Generated | None = None
    steps: dict[Step, float] = field(default_factory=dict)
    job: Job | None = None
    trace: Trace | None = None

    @property
    def caller(self) -> str:
        """The name of the key, or without keys the client's address."""
        return self.key or self.address

    @property
    def reason(self) -> str:
        """Why there is no complete answer; empty if there is one."""
        if self.status == 499:
            return "client left"
        return "" if self.error is None else self.error.log_message

    def begin(self, step: Step) -> None:
        """A step begins, and the one before it ends. A step that has begun already goes on."""
        self.steps.setdefault(step, time.monotonic())

    def fail(self, error: FrontendError) -> None:
        """The request ends with this error."""
        self.error, self.status = error, error.status


def record_of(scope: Scope) -> RequestRecord:
    """The record of a request. The first call, by the outermost middleware, makes it."""
    state: dict[str, Any] = scope.setdefault("state", {})
    if "record" not in state:
        state["record"] = RequestRecord(
            method=scope["method"],
            path=scope["raw_path"].decode(errors="replace"),
            address=scope["client"][0] if scope["client"] else "unknown",
            arrived_at=time.monotonic(),
        )
    record: RequestRecord = state["record"]
    return record
