"""Answers that generate while they are sent: one whole, one as a stream of server-sent events.

The HTTP rim of a generation: queue, engine, decoder and client meet here. Refuses to know what the JSON says: chat.py
renders it. Pure ASGI, because a layer between the engine and the socket is paid for at every token.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .chat import ChatChunks, Reply, to_completion
from .errors import DeadlineExceeded, FrontendError, to_body, to_frontend_error
from .generation import GenerationRequest, TokenChunk
from .sender import Sender, shortest_send
from .service import Service
from .text import AnswerDecoder

_log = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"


class ClientLeft(Exception):
    """The client closed the connection: there is nobody to answer."""


class GeneratedResponse(Response):
    """Runs one generation and sends what comes of it; ends it when the client leaves or the time is up."""

    def __init__(self, service: Service, request: GenerationRequest, reply: Reply, headers: dict[str, str]) -> None:
        super().__init__(headers=headers)
        del self.headers["content-length"]
        self._service = service
        self._request = request
        self._reply = reply
        self._decoder = AnswerDecoder(request, service.chat_model.tokenizer.token_bytes)
        self._started = False
        self._direct_send: Send

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._direct_send = shortest_send(scope, send)
        begin, outcome = time.monotonic(), "failed"
        try:
            await _while_client_stays(self._answer(send), receive, self._service.request_timeout_s)
            outcome = self._decoder.ending.finish_reason
        except ClientLeft:
            outcome = "client left"
        except Exception as exc:
            error = to_frontend_error(exc)
            outcome = f"{error.status} {error.message}"
            if not self._started:
                raise
            if error is not exc:
                _log.exception("%s", self._reply.id)
            await self._direct_send({"type": "http.response.body", "body": sse(orjson.dumps(to_body(error)))})
        finally:
            usage, took_s = self._decoder.usage, time.monotonic() - begin
            _log.info(
                "%s %s: %d prompt tokens, %d completion tokens, %.2f s",
                self._reply.id, outcome, usage.num_prompt_tokens, usage.num_completion_tokens, took_s,
            )  # fmt: skip

    async def _answer(self, send: Send) -> None:
        raise NotImplementedError

    async def _generate(self, take: Callable[[list[str]], None]) -> None:
        """Hand the answer's text to `take` as it comes, one list per read; the first tells that the engine has begun.

        Cancelling this cancels the engine's work and frees its slot.
        """
        decoder = self._decoder

        def on_chunks(chunks: Sequence[TokenChunk]) -> bool:
            take([text for chunk in chunks if (text := decoder.feed(chunk.token_ids))])
            return decoder.is_complete

        async with self._service.admission.slot():
            await self._service.triton.generate(self._request, on_chunks)
        if text := decoder.finish():
            take([text])


class WholeResponse(GeneratedResponse):
    """One JSON body when the answer is complete."""

    async def _answer(self, send: Send) -> None:
        deltas: list[str] = []
        await self._generate(deltas.extend)
        body = to_completion(self._reply, "".join(deltas), self._decoder.ending, self._decoder.usage)
        self._started = True
        headers = [*self.raw_headers, (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class StreamResponse(GeneratedResponse):
    """Server-sent events, one chunk per delta; what arrived together is sent together."""

    def __init__(
        self,
        service: Service,
        request: GenerationRequest,
        reply: Reply,
        headers: dict[str, str],
        *,
        include_usage: bool,
    ) -> None:
        super().__init__(service, request, reply, headers)
        self._chunks = ChatChunks(reply, include_usage=include_usage)
        self._include_usage = include_usage

    async def _answer(self, send: Send) -> None:
        sender = Sender(self._direct_send)

        def take(deltas: list[str]) -> None:
            body = b"".join([sse(self._chunks.delta(text)) for text in deltas])
            if not self._started:
                self._started = True
                sender.send({"type": "http.response.start", "status": 200, "headers": self._stream_headers()})
                body = sse(self._chunks.opening()) + body
            if body:
                sender.send({"type": "http.response.body", "body": body, "more_body": True})

        await self._generate(take)
        await sender.drain()
        last = sse(self._chunks.closing(self._decoder.ending))
        if self._include_usage:
            last += sse(self._chunks.usage(self._decoder.usage))
        await self._direct_send({"type": "http.response.body", "body": last + DONE})

    def _stream_headers(self) -> list[tuple[bytes, bytes]]:
        return [
            *self.raw_headers,
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
        ]


def sse(data: bytes) -> bytes:
    """One server-sent event."""
    return b"data: %b\n\n" % data


async def _while_client_stays(work: Coroutine[Any, Any, None], receive: Receive, timeout_s: float) -> None:
    """Run `work` to its end, but no longer than `timeout_s` and no longer than the client listens.

    Raises ClientLeft, DeadlineExceeded and whatever `work` raises; `work` has been wound up in each case.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait({working, leaving}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientLeft if leaving.done() else DeadlineExceeded("The answer took longer than this server allows.")
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.wait({working, leaving})
    working.result()


async def _disconnect(receive: Receive) -> None:
    """Return when the client has closed the connection; the body has been read before."""
    while (await receive())["type"] != "http.disconnect":
        pass


def error_response(error: FrontendError) -> Response:
    """An error before the first byte: it has a status."""
    return Response(orjson.dumps(to_body(error)), error.status, error.headers, "application/json")
