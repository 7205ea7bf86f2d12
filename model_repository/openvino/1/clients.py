"""Where the tokens of requests go: through Triton's response senders, as the tensors of the contract.

Their methods are called by the batcher's thread, which is the one that talks to Triton; `refuse` by others too.
"""

import time
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import triton_python_backend_utils as pb_utils
from batcher import SIGN_OF_LIFE_NS, Progress
from counters import BACKEND, CANCELED, RequestCounters
from generation import GenerationRequest
from numpy.typing import NDArray
from scorer_messages import Piece
from scoring import Scoring

Outputs: TypeAlias = dict[str, NDArray[Any]]


class TokenClient:
    """Sends a request's tokens through its response sender, and counts its end. Made when `execute` is done with it."""

    def __init__(self, sender: Any, counters: RequestCounters) -> None:
        self._sender = sender
        self._counters = counters
        self._since_ns = time.monotonic_ns()

    def is_cancelled(self) -> bool:
        """See `batcher.Client`."""
        return bool(self._sender.is_cancelled())

    def send(self, request: GenerationRequest, progress: Progress, final: bool) -> None:
        """See `batcher.Client`."""
        self._respond(to_outputs(request, progress), progress, final)
        progress.num_sent = len(progress.token_ids)

    def fail(self, message: str, progress: Progress) -> None:
        """See `batcher.Client`."""
        self._send_error(message, pb_utils.TritonError.INTERNAL)
        self._counters.ended(self._since_ns, progress.first_scheduled_time_ns, BACKEND)

    def cancel(self, progress: Progress) -> None:
        """See `batcher.Client`."""
        self._send_error("the request was cancelled", pb_utils.TritonError.CANCELLED)
        self._counters.ended(self._since_ns, progress.first_scheduled_time_ns, CANCELED)

    def refuse(self, message: str) -> None:
        """It has not been given to the engine."""
        self._send_error(message, pb_utils.TritonError.INVALID_ARG)
        self._counters.ended(self._since_ns, 0, BACKEND)
        self._counters.flush()

    def _respond(self, outputs: Outputs, progress: Progress, final: bool) -> None:
        tensors = [pb_utils.Tensor(name, array) for name, array in outputs.items()]
        self._sender.send(
            pb_utils.InferenceResponse(tensors), pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if final else 0
        )
        if final:
            self._counters.ended(self._since_ns, progress.first_scheduled_time_ns)

    def _send_error(self, message: str, code: int) -> None:
        response = pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
        self._sender.send(response, pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


class GuidedClient:
    """Reports the first tokens, or the end without any, and passes everything on."""

    def __init__(self, client: TokenClient, started: Callable[[], None]) -> None:
        self._client = client
        self._started: Callable[[], None] | None = started

    def is_cancelled(self) -> bool:
        """See `batcher.Client`."""
        return self._client.is_cancelled()

    def send(self, request: GenerationRequest, progress: Progress, final: bool) -> None:
        """See `batcher.Client`."""
        self._report()
        self._client.send(request, progress, final)

    def fail(self, message: str, progress: Progress) -> None:
        """See `batcher.Client`."""
        self._report()
        self._client.fail(message, progress)

    def cancel(self, progress: Progress) -> None:
        """See `batcher.Client`."""
        self._report()
        self._client.cancel(progress)

    def _report(self) -> None:
        started, self._started = self._started, None
        if started is not None:
            started()


class ScoredClient(TokenClient):
    """Sends the tokens with their log probabilities, or after those of the prompt, as scorer.py computes them.

    The tokens wait for that. The last piece may come long after the engine's last token, when the batch has forgotten
    the request: then this notices that it was cancelled.
    """

    def __init__(self, sender: Any, counters: RequestCounters, scoring: Scoring) -> None:
        super().__init__(sender, counters)
        self._scoring = scoring
        self._key: int | None = None
        self._request: GenerationRequest
        self._progress: Progress
        self._prompt_is_done = False
        self._left_the_batch = False
        self._has_ended = False
        self._sent_ns = time.monotonic_ns()

    def is_cancelled(self) -> bool:
        """See `batcher.Client`."""
        return self._has_ended or super().is_cancelled()

    def send(self, request: GenerationRequest, progress: Progress, final: bool) -> None:
        """See `batcher.Client`."""
        if self._has_ended:
            return
        if not (progress.token_ids or final):
            super().send(request, progress, final)  # a sign of life
            return
        self._request, self._progress, self._left_the_batch = request, progress, final
        if self._key is None:
            self._key = self._scoring.open(request, self)
            if request.num_top_log_probs is None:
                self._scoring.extend(self._key, [], is_last=True)
        if request.num_top_log_probs is not None:
            self._scoring.extend(self._key, progress.token_ids[progress.num_sent :], is_last=final)
            progress.num_sent = len(progress.token_ids)
        elif self._prompt_is_done:
            super().send(request, progress, final)

    def fail(self, message: str, progress: Progress) -> None:
        """See `batcher.Client`."""
        if self._end():
            super().fail(message, progress)

    def cancel(self, progress: Progress) -> None:
        """See `batcher.Client`."""
        if self._end():
            super().cancel(progress)

    def on_piece(self, piece: Piece) -> None:
        """See `scoring.PieceReader`."""
        if self._is_gone():
            return
        outputs = {} if piece.prompt is None else piece.prompt.to_tensors("prompt_")
        if self._request.num_top_log_probs is not None:
            outputs |= {} if piece.answer is None else piece.answer.to_tensors()
            outputs |= token_outputs(piece.token_ids) | time_outputs(self._request, self._progress)
            self._respond(outputs, self._progress, piece.is_last)
            return
        self._prompt_is_done = piece.is_last
        if not piece.is_last:
            self._respond(outputs | token_outputs([]), self._progress, final=False)
            return
        outputs |= to_outputs(self._request, self._progress)
        self._respond(outputs, self._progress, final=self._left_the_batch)
        self._progress.num_sent = len(self._progress.token_ids)

    def on_other_piece(self) -> None:
        """See `scoring.PieceReader`. Triton notices a closed connection only when it writes."""
        if time.monotonic_ns() - self._sent_ns >= SIGN_OF_LIFE_NS and not self._is_gone():
            self._respond(token_outputs([]), self._progress, final=False)

    def on_end(self, message: str) -> None:
        """See `scoring.PieceReader`."""
        self.fail(message, self._progress)
        self._counters.flush()

    def _is_gone(self) -> bool:
        """Whether nothing is to be sent any more. While the request is in the batch, that is where it is dropped."""
        if not self.is_cancelled():
            return False
        if self._left_the_batch:
            self.cancel(self._progress)
            self._counters.flush()
        return True

    def _end(self) -> bool:
        """Whether it has not ended before."""
        has_ended, self._has_ended = self._has_ended, True
        if self._key is not None:
            self._scoring.drop(self._key)
        return not has_ended

    def _respond(self, outputs: Outputs, progress: Progress, final: bool) -> None:
        self._sent_ns, self._has_ended = time.monotonic_ns(), final
        super()._respond(outputs, progress, final)
        if final:
            self._counters.flush()  # the batch may be idle


def to_outputs(request: GenerationRequest, progress: Progress) -> Outputs:
    """The new tokens, [batch 1, beams 1, ...]; log probs are of all tokens so far, as TensorRT-LLM streams them."""
    token_ids = progress.token_ids[progress.num_sent :]
    if request.echo and not request.streaming:
        token_ids = [*request.prompt_token_ids[0].tolist(), *token_ids]
    outputs = token_outputs(token_ids)
    if request.return_log_probs:
        outputs["output_log_probs"] = np.array([[progress.log_probs]], np.float32)
        outputs["cum_log_probs"] = np.array([[sum(progress.log_probs)]], np.float32)
    return outputs | time_outputs(request, progress)


def token_outputs(token_ids: list[int]) -> Outputs:
    """Tokens of the answer, or none."""
    return {
        "output_ids": np.array([[token_ids]], np.int32),
        "sequence_length": np.array([[len(token_ids)]], np.int32),
    }


def time_outputs(request: GenerationRequest, progress: Progress) -> Outputs:
    """The times that the request asks for."""
    if not request.return_perf_metrics:
        return {}
    times = {
        "arrival_time_ns": request.arrival_time_ns,
        "first_scheduled_time_ns": progress.first_scheduled_time_ns,
        "first_token_time_ns": progress.first_token_time_ns,
        "last_token_time_ns": progress.last_token_time_ns,
    }
    return {name: np.array([[value]], np.int64) for name, value in times.items()}
