"""What an endpoint hands to the server: the generations of one reply, their constraint, and the reply's writer.

A reply is what the client gets for a request. It has one answer, or `n` of them, each of one generation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from frontend.errors import FrontendError
from frontend.generation import Delta, GenerationRequest, Outcome, Token
from frontend.guided_decoding import Constraint

Operation = Literal["chat", "text_completion"]
"""What an endpoint does, in OpenTelemetry's words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One finished generation. `tokens` is empty unless the job is `with_tokens`.

    `prompt` has the prompt's tokens if the request asks for their log probabilities.
    """

    text: str
    tokens: Sequence[Token]
    outcome: Outcome
    prompt: Sequence[Token] = ()


class ReplyWriter(Protocol):
    """Writes one reply as an endpoint does. It keeps state, so each reply needs a new one.

    `index` counts the generations of the job from 0.
    """

    def complete(self, answers: Sequence[Answer]) -> bytes:
        """The JSON body of a reply that is not streamed."""

    def start(self) -> bytes:
        """The first events of a stream, before any text."""

    def delta(self, index: int, delta: Delta) -> bytes:
        """The events for more text; empty if the writer holds it back."""

    def finish(self, index: int, outcome: Outcome) -> bytes:
        """The last events of one generation."""

    def end(self, outcomes: Sequence[Outcome]) -> bytes:
        """The last events of the stream."""

    def error(self, error: FrontendError) -> bytes:
        """The event that ends a stream that failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReply:
    """A complete reply that clients may ask for later; `created_at` is in seconds since 1970.

    Both texts are JSON: `reply` as the client got it, and the array of the conversation's items until then, which the
    items of a following request continue.
    """

    id: str
    created_at: int
    reply: bytes
    conversation: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The generations of one reply, checked and tokenized.

    `id` and `model` are those of the reply. `requests` has `num_choices` for each prompt, prompt by prompt.
    `constraint` must be compiled, and its grammar set by `with_guide`, before the job runs. `with_tokens`: the writer
    needs the tokens too, not only the text. `to_stored` makes what is stored of a complete reply, if it is to be.
    """

    id: str
    model: str
    requests: Sequence[GenerationRequest]
    writer: ReplyWriter
    stream: bool
    num_choices: int = 1
    with_tokens: bool = False
    constraint: Constraint | None = None
    operation: Operation = "chat"
    to_stored: Callable[[], StoredReply] | None = None

    @property
    def prompts(self) -> Sequence[Sequence[int]]:
        """The token ids of each prompt, once."""
        return [request.prompt_token_ids for request in self.requests[:: self.num_choices]]

    def with_guide(self, guide: str) -> "Job":
        """The same job with all its generations guided by a compiled grammar, in EBNF."""
        requests = [
            replace(request, sampling_params=replace(request.sampling_params, guide=guide)) for request in self.requests
        ]
        return replace(self, requests=requests)
