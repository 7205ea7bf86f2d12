"""What an endpoint hands to the server: the generations of one answer, their constraint, and how to write them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from frontend.errors import FrontendError
from frontend.generation import Delta, GenerationRequest, Outcome, Token
from frontend.guided_decoding import Constraint


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One finished generation. `tokens` are empty where the job does not ask for them."""

    text: str
    tokens: Sequence[Token]
    outcome: Outcome


class ReplyFormat(Protocol):
    """How an endpoint writes its answers. It is made for one answer and may remember what it has written.

    `index` is the place of a generation among those of the job.
    """

    def complete(self, answers: Sequence[Answer]) -> bytes:
        """The JSON body of an answer that is not streamed."""

    def start(self) -> bytes:
        """The first events of a stream, before any text."""

    def delta(self, index: int, delta: Delta) -> bytes:
        """The events for more text; empty if the format holds it back."""

    def finish(self, index: int, outcome: Outcome) -> bytes:
        """The last events of one generation."""

    def end(self, outcomes: Sequence[Outcome]) -> bytes:
        """The last events of the stream."""

    def error(self, error: FrontendError) -> bytes:
        """The event that ends a stream that failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The generations of one answer, checked and tokenized.

    `id` is that of the answer, for the log. `constraint` must be compiled, and its grammar set by `with_guide`, before
    the job runs. `with_tokens`: the format wants the tokens beside the text.
    """

    id: str
    requests: Sequence[GenerationRequest]
    format: ReplyFormat
    stream: bool
    with_tokens: bool = False
    constraint: Constraint | None = None

    def with_guide(self, guide: str) -> "Job":
        """The same job with all its generations guided by a compiled grammar, in EBNF."""
        requests = [
            replace(request, sampling_params=replace(request.sampling_params, guide=guide)) for request in self.requests
        ]
        return replace(self, requests=requests)
