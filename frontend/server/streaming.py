"""The HTTP response to a job: one JSON body, or a stream of server-sent events, sent while the engine generates.

Pure ASGI, because each call between the engine and the socket costs CPU at every token. The job's writer makes the
bytes of the body.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from itertools import repeat

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from frontend.generation import Delta, Outcome
from frontend.openai.job import Answer, Job
from frontend.text.detokenizer import AnswerDecoder

from .asgi_send import Sender, shortest_send
from .disconnect import ClientDisconnected, cancel_on_disconnect
from .errors import to_frontend_error
from .request_record import Generated, RequestRecord, record_of
from .run import Generation, run
from .service import Service

_log = logging.getLogger(__name__)

_SILENCE_S = 15.0
"""Time without an event before a stream gets a comment."""

_COMMENT = b": waiting\n\n"


def respond(service: Service, job: Job, headers: dict[str, str], arrived_at: float) -> Response:
    """The response that runs the job. Its time limit counts from `arrived_at`, by the monotonic clock."""
    response_type = EventStreamResponse if job.stream else JsonResponse
    return response_type(service, job, headers, arrived_at)


class JobResponse(Response):
    """Runs a job when it is sent; cancels it when the client disconnects or the time is up."""

    def __init__(self, service: Service, job: Job, headers: dict[str, str], arrived_at: float) -> None:
        # As in Starlette's StreamingResponse: without a body there is no content-length yet.
        self.status_code = 200
        self.background = None
        self.init_headers(headers)
        self._service = service
        self._job = job
        self._decoders = [self._decoder(index) for index in range(len(job.requests))]
        self._clocks = [
            service.metrics.clock(decoder, arrived_at, counts_prompt=index % job.num_choices == 0)
            for index, decoder in enumerate(self._decoders)
        ]
        self._arrived_at = arrived_at
        self._started = False
        self._shortest_send: Send
        self._record: RequestRecord

    def _decoder(self, index: int) -> AnswerDecoder:
        request, tokenizer = self._job.requests[index], self._service.served_model.tokenizer
        token_bytes = tokenizer.bytes_of(
            skip_special_tokens=request.sampling_params.skip_special_tokens,
            shown_token_ids=request.sampling_params.shown_token_ids,
        )
        names = tokenizer.bytes_of(skip_special_tokens=False)
        return AnswerDecoder(request, token_bytes, with_tokens=self._job.with_tokens, names=names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._shortest_send = shortest_send(scope, send)
        self._record = record = record_of(scope)
        record.begin("queue")
        try:
            deadline = self._arrived_at + self._service.request_timeout_s
            await cancel_on_disconnect(self._answer(send, record.caller), receive, deadline)
        except ClientDisconnected:
            record.status = 499
        except Exception as exc:
            error = to_frontend_error(exc)
            record.fail(error)
            if not self._started:
                raise
            if error is not exc:
                _log.exception("%s", self._job.id)
            await self._shortest_send({"type": "http.response.body", "body": self._job.writer.error(error)})
        finally:
            record.generated = self._generated(time.monotonic(), is_complete=not record.reason)

    async def _answer(self, send: Send, caller: str) -> None:
        raise NotImplementedError

    async def _run(self, caller: str) -> None:
        headers = self._record.trace.headers if self._record.trace else {}
        generations = list(map(Generation, self._job.requests, self._decoders, repeat(headers)))
        with self._service.metrics.count(self._clocks):
            await run(self._service, generations, self, caller)
        self._service.metrics.finish_job(self._job, self._clocks)

    def on_start(self, index: int) -> None:
        """See `run.Listener`."""
        self._clocks[index].start()
        self._record.begin("first_token")

    def on_deltas(self, index: int, deltas: Sequence[Delta]) -> None:
        """See `run.Listener`."""
        clock = self._clocks[index]
        if clock.first_token_at is None and (num_tokens := deltas[-1].num_completion_tokens):
            clock.grew_to(num_tokens)
            self._record.begin("decode")
        self._write(index, deltas)

    def on_finish(self, index: int) -> None:
        """See `run.Listener`."""
        self._clocks[index].finish()

    def _write(self, index: int, deltas: Sequence[Delta]) -> None:
        raise NotImplementedError

    async def _store(self) -> None:
        """Store the complete reply, if it is to be, before the client can know that it is complete."""
        if self._job.to_stored is not None and self._service.responses is not None:
            await self._service.responses.store(self._record.key or "", self._job.to_stored())

    @property
    def _outcomes(self) -> list[Outcome]:
        return [decoder.outcome for decoder in self._decoders]

    def _generated(self, now: float, *, is_complete: bool) -> Generated:
        """What the reply has taken until now, for the log."""
        usages = [outcome.usage for outcome in self._outcomes]
        of_prompts = usages[:: self._job.num_choices]
        cached = [usage.num_cached_tokens for usage in of_prompts if usage.num_cached_tokens is not None]
        reasons = {outcome.ending.finish_reason for outcome in self._outcomes} if is_complete else ()
        began = [clock.first_token_at for clock in self._clocks if clock.first_token_at is not None]
        num_completion_tokens = sum(usage.num_completion_tokens for usage in usages)
        num_following = num_completion_tokens - len(began)
        return Generated(
            id=self._job.id,
            finish_reason=", ".join(sorted(reasons)),
            num_prompt_tokens=sum(usage.num_prompt_tokens for usage in of_prompts),
            num_completion_tokens=num_completion_tokens,
            num_cached_tokens=sum(cached) if cached else None,
            first_token_s=min(began) - self._arrived_at if began else None,
            tokens_per_s=num_following / (now - min(began)) if num_following > 0 else None,
        )


class JsonResponse(JobResponse):
    """One JSON body when all generations are complete."""

    async def _answer(self, send: Send, caller: str) -> None:
        self._deltas: list[list[Delta]] = [[] for _ in self._job.requests]
        await self._run(caller)
        answers = list(map(_to_answer, self._deltas, self._outcomes))
        if any(request.sampling_params.has_alternatives for request in self._job.requests):
            # Up to twenty times as much to write as text: in a thread, so that the streams go on.
            body = await asyncio.to_thread(self._job.writer.complete, answers)
        else:
            body = self._job.writer.complete(answers)
        await self._store()
        self._started = True
        headers = [*self.raw_headers, (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _write(self, index: int, deltas: Sequence[Delta]) -> None:
        self._deltas[index].extend(deltas)


def _to_answer(deltas: Sequence[Delta], outcome: Outcome) -> Answer:
    return Answer(
        text="".join([delta.text for delta in deltas]),
        tokens=[token for delta in deltas for token in delta.tokens],
        outcome=outcome,
        prompt=[token for delta in deltas for token in delta.prompt],
    )


class EventStreamResponse(JobResponse):
    """Server-sent events. Tokens that arrive from the engine together are sent together.

    Before the first of them comments keep the connection open: proxies cut a silent one, some after 30 s.
    """

    async def _answer(self, send: Send, caller: str) -> None:
        self._sender = Sender(self._shortest_send)
        self._has_begun = False
        self._silence = asyncio.get_running_loop().call_later(_SILENCE_S, self._keep_alive)
        try:
            await self._run(caller)
        finally:
            self._silence.cancel()
        await self._sender.drain()
        last = self._job.writer.end(self._outcomes)
        await self._store()
        await self._shortest_send({"type": "http.response.body", "body": last})

    def _write(self, index: int, deltas: Sequence[Delta]) -> None:
        write = self._job.writer.delta
        if self._has_begun:
            self._send_body(b"".join([write(index, delta) for delta in deltas]))
            return
        body = self._job.writer.start() + b"".join([write(index, delta) for delta in deltas])
        self._has_begun = True
        self._silence.cancel()
        if not self._started:
            self._send_headers()
        self._send_body(body)

    def _keep_alive(self) -> None:
        """Send a comment, which clients skip, now and again until the engine begins to answer."""
        if not self._started:
            self._send_headers()
        self._send_body(_COMMENT)
        self._silence = asyncio.get_running_loop().call_later(_SILENCE_S, self._keep_alive)

    def _send_headers(self) -> None:
        """Sent with the first bytes. After that an error is an event, because the status has been sent."""
        self._started = True
        headers = [
            *self.raw_headers,
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
        ]
        self._sender.send({"type": "http.response.start", "status": 200, "headers": headers})

    def on_finish(self, index: int) -> None:
        """See `run.Listener`."""
        super().on_finish(index)
        self._send_body(self._job.writer.finish(index, self._decoders[index].outcome))

    def _send_body(self, body: bytes) -> None:
        if body:
            self._sender.send({"type": "http.response.body", "body": body, "more_body": True})
