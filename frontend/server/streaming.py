"""Answers that generate while they are sent: one whole, one as a stream of server-sent events.

The HTTP rim of a job: queue, engine, decoders and client meet here. Refuses to know what the bytes say: the job's
format writes them. Pure ASGI, because a layer between the engine and the socket is paid for at every token.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from frontend.errors import FrontendError, InvalidRequest, to_body, to_frontend_error
from frontend.generation import Delta, GenerationRequest, Outcome, TokenChunk
from frontend.openai.reply import Answer, Job
from frontend.text.detokenizer import AnswerDecoder

from .admission import Reservation
from .asgi_send import Sender, shortest_send
from .disconnect import ClientDisconnected, cancel_on_disconnect
from .service import Service

_log = logging.getLogger(__name__)

Take = Callable[[int, Sequence[Delta]], None]
"""Takes what the generation at a place has grown by; the first time tells that the engine has begun."""


def answer(service: Service, job: Job, headers: dict[str, str], begin: float) -> Response:
    """The response that runs a job, as the client wants it. Raises InvalidRequest if no idle server could take it.

    The request arrived at `begin`, by the monotonic clock: its time runs from there.
    """
    if len(job.requests) > service.admission.capacity:
        raise InvalidRequest(
            f"{len(job.requests)} answers are asked for; this server takes {service.admission.capacity} at a time.",
            param="n",
        )
    kind = StreamResponse if job.stream else WholeResponse
    return kind(service, job, headers, begin)


class GeneratedResponse(Response):
    """Runs the generations of one job and sends what comes of them; ends them when the client leaves or time is up."""

    def __init__(self, service: Service, job: Job, headers: dict[str, str], begin: float) -> None:
        super().__init__(headers=headers)
        del self.headers["content-length"]
        self._service = service
        self._job = job
        self._decoders = [_decoder(request, service, job) for request in job.requests]
        self._caller = ""
        self._begin = begin
        self._started = False
        self._shortest_send: Send

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._shortest_send = shortest_send(scope, send)
        self._caller = scope.get("state", {}).get("caller", "")
        ended = "failed"
        try:
            await cancel_on_disconnect(self._answer(send), receive, self._begin + self._service.request_timeout_s)
            ended = ", ".join({outcome.ending.finish_reason for outcome in self._outcomes})
        except ClientDisconnected:
            ended = "499 client left"
        except Exception as exc:
            error = to_frontend_error(exc)
            ended = f"{error.status} {error.message}"
            if not self._started:
                raise
            if error is not exc:
                _log.exception("%s", self._job.id)
            await self._shortest_send({"type": "http.response.body", "body": self._job.format.error(error)})
        finally:
            self._report(ended, time.monotonic() - self._begin)

    async def _answer(self, send: Send) -> None:
        raise NotImplementedError

    @property
    def _outcomes(self) -> list[Outcome]:
        return [decoder.outcome for decoder in self._decoders]

    def _report(self, ended: str, took_s: float) -> None:
        usages = [outcome.usage for outcome in self._outcomes]
        num_prompt_tokens = sum(usage.num_prompt_tokens for usage in usages)
        num_completion_tokens = sum(usage.num_completion_tokens for usage in usages)
        _log.info(
            "%s %s: %d prompt tokens, %d completion tokens, %.2f s",
            self._job.id, ended, num_prompt_tokens, num_completion_tokens, took_s,
        )  # fmt: skip

    async def _generate(self, take: Take) -> None:
        """Run all generations of the job. Cancelling this cancels the engine's work and frees its slots."""
        with self._service.admission.reserve(self._caller, len(self._job.requests)) as reservation:
            await _all_of([self._generate_one(index, reservation, take) for index in range(len(self._job.requests))])

    async def _generate_one(self, index: int, reservation: Reservation, take: Take) -> None:
        decoder, request = self._decoders[index], self._job.requests[index]

        def on_chunks(chunks: Sequence[TokenChunk]) -> bool:
            deltas = [decoder.feed(chunk) for chunk in chunks]
            if clock.first_token_at is None:
                clock.arrived(deltas[-1].num_completion_tokens)
            take(index, deltas)
            return decoder.is_complete

        with self._service.metrics.generation(decoder, self._begin) as clock:
            async with reservation.slot():
                await self._service.triton.generate(request, on_chunks)
            take(index, [decoder.finish()])
        self._ended(index)

    def _ended(self, index: int) -> None:
        """The generation at this place is over."""


def _decoder(request: GenerationRequest, service: Service, job: Job) -> AnswerDecoder:
    params = request.sampling_params
    token_bytes = service.served_model.tokenizer.bytes_of(
        skip_special_tokens=params.skip_special_tokens, shown_token_ids=params.shown_token_ids
    )
    return AnswerDecoder(request, token_bytes, with_tokens=job.with_tokens)


class WholeResponse(GeneratedResponse):
    """One JSON body when the answers are complete."""

    async def _answer(self, send: Send) -> None:
        deltas: list[list[Delta]] = [[] for _ in self._job.requests]
        await self._generate(lambda index, more: deltas[index].extend(more))
        answers = [_to_answer(parts, outcome) for parts, outcome in zip(deltas, self._outcomes, strict=True)]
        body = self._job.format.whole(answers)
        self._started = True
        headers = [*self.raw_headers, (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _to_answer(deltas: Sequence[Delta], outcome: Outcome) -> Answer:
    text = "".join([delta.text for delta in deltas])
    return Answer(text=text, tokens=[token for delta in deltas for token in delta.tokens], outcome=outcome)


class StreamResponse(GeneratedResponse):
    """Server-sent events; what arrived together is sent together."""

    async def _answer(self, send: Send) -> None:
        self._sender = Sender(self._shortest_send)
        await self._generate(self._take)
        await self._sender.drain()
        await self._shortest_send({"type": "http.response.body", "body": self._job.format.end(self._outcomes)})

    def _take(self, index: int, deltas: Sequence[Delta]) -> None:
        write = self._job.format.delta
        opening = b"" if self._started else self._job.format.opening()
        body = opening + b"".join([write(index, delta) for delta in deltas])
        if not self._started:
            self._started = True
            self._sender.send({"type": "http.response.start", "status": 200, "headers": self._stream_headers()})
        self._send_body(body)

    def _ended(self, index: int) -> None:
        self._send_body(self._job.format.closing(index, self._decoders[index].outcome))

    def _send_body(self, body: bytes) -> None:
        if body:
            self._sender.send({"type": "http.response.body", "body": body, "more_body": True})

    def _stream_headers(self) -> list[tuple[bytes, bytes]]:
        return [
            *self.raw_headers,
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
        ]


async def _all_of(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run them side by side; the first that fails ends the others, which have been wound up when this returns."""
    if len(works) == 1:
        await works[0]
        return
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        # Looked at also when this is cancelled: asyncio logs failures that nobody has seen.
        failures = [failure for task in tasks if not task.cancelled() and (failure := task.exception())]
    if failures:
        raise failures[0]


def error_response(error: FrontendError) -> Response:
    """An error before the first byte: it has a status."""
    return Response(orjson.dumps(to_body(error)), error.status, error.headers, "application/json")
