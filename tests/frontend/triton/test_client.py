"""The client of Triton sends the key that Triton requires, and says in one line that it is missing."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from aiohttp import web
from aiohttp.typedefs import Middleware

from frontend.errors import StartupError
from frontend.generation import EndTokens, GenerationRequest, SamplingParams, TokenChunk
from frontend.triton.client import NO_HEADERS, TritonClient, open_triton
from tests.frontend.fake_triton import FakeTriton

KEY = {"triton-key": "of this start"}
OPEN = "/ready"
"""The end of the one path that needs no key."""


@web.middleware
async def require_key(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """As Triton's --http-restricted-api."""
    if request.path.endswith(OPEN) or request.headers.get("triton-key") == KEY["triton-key"]:
        return await handler(request)
    return web.json_response({"error": "This API is restricted, expecting header 'triton-key'"}, status=403)


async def generate(client: TritonClient) -> list[int]:
    token_ids: list[int] = []

    def on_chunks(chunks: Sequence[TokenChunk]) -> bool:
        token_ids.extend(token_id for chunk in chunks for token_id in chunk.token_ids)
        return False

    params = SamplingParams(max_tokens=1, temperature=0, top_p=1, seed=0)
    request = GenerationRequest(prompt_token_ids=(1,), sampling_params=params, end_tokens=EndTokens(end_id=2, pad_id=2))
    await client.generate(request, on_chunks)
    return token_ids


async def ask(headers: dict[str, str], middleware: Middleware = require_key) -> list[int]:
    fake = FakeTriton()
    application = fake.application()
    application.middlewares.append(middleware)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with open_triton(url, fake.model, startup_timeout_s=5, headers=headers or NO_HEADERS) as client:
            return await generate(client)
    finally:
        await runner.cleanup()


def test_a_question_leaves_no_connection_open() -> None:
    """A Triton that ends waits for each of them until its time is up, and then ends with status 1."""
    asked: list[tuple[str, str | None]] = []

    @web.middleware
    async def note(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        asked.append((request.path, request.headers.get("connection")))
        return await handler(request)

    asyncio.run(ask(KEY, note))
    questions = [(path, connection) for path, connection in asked if "generate" not in path]
    assert {path.rpartition("/")[2] for path, _ in questions} == {"ready", "config"}
    assert {connection for _, connection in questions} == {"close"}


def test_the_key_is_sent_with_every_request() -> None:
    assert asyncio.run(ask(KEY)) == [28705]


def test_a_missing_key_is_said_at_the_start() -> None:
    with pytest.raises(StartupError) as error:
        asyncio.run(ask({}))
    assert str(error.value) == (
        "Triton does not give the configuration of `openvino`: This API is restricted, expecting header 'triton-key'"
    )
