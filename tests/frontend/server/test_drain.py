"""The end of the frontend: new requests get 503 with a true `Retry-After`, and so do answers that take too long."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from starlette.responses import PlainTextResponse

from frontend.server.app import create_app
from frontend.server.drain import ONE_SIGNAL_S, Drain
from frontend.server.middleware.stack import with_middleware
from frontend.server.uvicorn import Server
from frontend.text.served_model import ServedModel
from frontend.triton.client import open_triton
from tests.frontend.conftest import CHAT, body, make_service
from tests.frontend.fake_triton import Endless, Events, FakeTriton
from tests.frontend.server.serving import Client, make_server, serving

SLOW = Events([[6004], [21209]], pause_s=0.2)
LONG_S, SHORT_S = 60, 0.3
DRAIN_S = 40


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 120))


@asynccontextmanager
async def frontend(
    model: ServedModel, script: Any, shutdown_timeout_s: float
) -> AsyncIterator[tuple[Server, FakeTriton]]:
    """A frontend that the test ends."""
    fake, drain = FakeTriton(), Drain()
    fake.script = [script]
    runner = web.AppRunner(fake.application(), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    triton_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with open_triton(triton_url, fake.model, startup_timeout_s=5) as client:
        service = make_service(model, client, triton_url)
        app = with_middleware(create_app(service), drain=drain)
        async with serving(app, drain=drain, shutdown_timeout_s=shutdown_timeout_s, drain_seconds=DRAIN_S) as server:
            yield server, fake
        await service.guides.close()
    await runner.cleanup()


async def ask(server: Server, **fields: Any) -> Client:
    """A client that has sent a request."""
    client, content = await Client.connect(server), json.dumps(body(**fields)).encode()
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    await client.send(head.encode() + content)
    return client


async def until_running(fake: FakeTriton, count: int) -> None:
    while fake.num_running < count:
        await asyncio.sleep(0.01)


def test_running_answers_finish_and_new_requests_get_503_with_the_time_that_is_left(mixtral: ServedModel) -> None:
    async def scenario() -> None:
        async with frontend(mixtral, SLOW, LONG_S) as (server, fake):
            clients = [await ask(server, stream=stream) for stream in (True, False)]
            await until_running(fake, 2)
            ending = asyncio.create_task(server.shutdown())
            await asyncio.sleep(0)
            for client in (await ask(server), await ask(server, stream=True)):
                status, error, head = await client.error()
                assert (status, error["type"], error["code"]) == (503, "server_error", "shutting_down")
                assert LONG_S - 20 < int(head.partition(b"retry-after: ")[2].split()[0]) <= LONG_S
            stream, whole = [await client.read_to_end() for client in clients]
            assert stream.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
            assert b'"content":" Ein Haus"' in whole
            await ending
            assert not server.servers[0].is_serving()

    run(scenario())


def test_answers_that_take_too_long_end_with_an_error_and_the_engine_stops(mixtral: ServedModel) -> None:
    async def scenario() -> None:
        async with frontend(mixtral, Endless(6004), SHORT_S) as (server, fake):
            stream, whole = await ask(server, stream=True), await ask(server)
            half = await Client.connect(server)
            start = f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            await half.send(f"{start}Content-Length: 9\r\n\r\n{{".encode())
            await until_running(fake, 2)
            ending = asyncio.create_task(server.shutdown())
            for client in (whole, half):
                status, error, head = await client.error()
                assert (status, error["type"], error["code"]) == (503, "server_error", "shutting_down")
                assert b"retry-after: 1" in head
            head, _, events = (await stream.read_to_end()).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            last = events.split(b"data: ")[-1]
            assert b'"code":"shutting_down"' in last
            assert events.endswith(b"\r\n0\r\n\r\n")
            await ending
            while fake.num_running:
                await asyncio.sleep(0.01)

    run(scenario())


def test_a_server_that_is_about_to_end_is_not_ready_and_answers_all_else(mixtral: ServedModel) -> None:
    async def scenario() -> None:
        async with frontend(mixtral, SLOW, LONG_S) as (server, _):
            server.handle_exit(signal.SIGTERM, None)
            for path in ("/health", "/health/ready", "/ping"):
                probe = await Client.connect(server)
                await probe.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                status, error, head = await probe.error()
                assert (path, status, error["code"]) == (path, 503, "shutting_down")
                assert DRAIN_S - 20 < int(head.partition(b"retry-after: ")[2].split()[0]) <= DRAIN_S
            for path in ("/health/live", "/metrics", "/v1/models"):
                other = await Client.connect(server)
                await other.send(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
                assert (await other.read_to_end()).startswith(b"HTTP/1.1 200 "), path
            client = await ask(server)
            assert b'"content":" Ein Haus"' in await client.read_until(b'Ein Haus"')
            await client.close()

    run(scenario())


@pytest.mark.parametrize(("second_after_s", "is_cut"), [(0.0, False), (ONE_SIGNAL_S + 0.05, True)])
def test_a_second_signal_ends_the_wait_unless_it_is_the_same_one_twice(second_after_s: float, is_cut: bool) -> None:
    server = make_server(PlainTextResponse("served"), drain_seconds=DRAIN_S)
    server.handle_exit(signal.SIGTERM, None)
    time.sleep(second_after_s)
    server.handle_exit(signal.SIGTERM, None)
    assert (server.should_exit, server.force_exit) == (True, is_cut)


def test_a_second_ctrl_c_cuts_the_time_short(mixtral: ServedModel) -> None:
    async def scenario() -> None:
        async with frontend(mixtral, Endless(6004), LONG_S) as (server, fake):
            client = await ask(server)
            await until_running(fake, 1)
            ending = asyncio.create_task(server.shutdown())
            await asyncio.sleep(0)
            server.force_exit = True
            assert (await client.error())[0] == 503
            await ending

    run(scenario())


def test_liveness_and_metrics_answer_to_the_end_and_readiness_does_not(mixtral: ServedModel) -> None:
    async def scenario() -> None:
        async with frontend(mixtral, Endless(6004), LONG_S) as (server, fake):
            client = await ask(server)
            await until_running(fake, 1)
            ending = asyncio.create_task(server.shutdown())
            await asyncio.sleep(0)
            for path, status in (("/health/live", 200), ("/metrics", 200), ("/health", 503), ("/health/ready", 503)):
                other = await Client.connect(server)
                await other.send(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
                assert (await other.read_to_end()).startswith(f"HTTP/1.1 {status} ".encode()), path
            await client.close()
            await ending

    run(scenario())
