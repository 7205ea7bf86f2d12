"""What goes through the layers around the routes, and what goes past them."""

import asyncio

from starlette.types import Message, Receive, Scope, Send

from frontend.server.asgi_send import DirectSend, shortest_send


def test_the_start_of_a_stream_goes_through_every_layer_and_its_body_past_them() -> None:
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

    async def layer(scope: Scope, receive: Receive, send: Send) -> None:
        async def look(message: Message) -> None:
            seen.append(message)
            await send(message)

        await stream(scope, receive, look)

    asyncio.run(DirectSend(layer)({"type": "http"}, receive, server))
    assert (sent, seen) == (messages, messages[:1])
