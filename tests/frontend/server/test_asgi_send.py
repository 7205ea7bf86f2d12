"""Which messages of a response pass the middleware, and which are sent directly."""

import asyncio

from starlette.types import Message, Receive, Scope, Send

from frontend.server.asgi_send import DirectSend, shortest_send


def test_the_start_of_a_stream_passes_all_middleware_and_its_body_none() -> None:
    sent: list[Message] = []
    seen: list[Message] = []
    messages: list[Message] = [
        {"type": "http.response.start", "status": 200},
        {"type": "http.response.body", "body": b"a", "more_body": True},
        {"type": "http.response.body", "body": b"b"},
    ]

    async def server(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise NotImplementedError

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        send = shortest_send(scope, send)
        for message in messages:
            await send(message)

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        async def record(message: Message) -> None:
            seen.append(message)
            await send(message)

        await stream(scope, receive, record)

    asyncio.run(DirectSend(middleware)({"type": "http"}, receive, server))
    assert (sent, seen) == (messages, messages[:1])
