"""Resting between reads: only with many exchanges under way, and once for all that was read together."""

import asyncio
import time
from contextlib import ExitStack

import pytest

from frontend.errors import EngineUnavailable
from frontend.triton import http_stream
from frontend.triton.http_stream import Gathering


@pytest.mark.parametrize(("num_open", "rests"), [(0, 0), (15, 0), (16, 1), (64, 1)])
def test_the_loop_rests_once_for_all_that_arrived_together(
    num_open: int, rests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rested: list[float] = []
    monkeypatch.setattr(time, "sleep", rested.append)

    async def read_all() -> None:
        gathering = Gathering()
        with ExitStack() as exchanges:
            for _ in range(num_open):
                exchanges.enter_context(gathering.exchange())
            for _ in range(num_open):
                gathering.arrived()
            await asyncio.sleep(0)

    asyncio.run(read_all())
    assert rested == [0.002] * rests


def test_an_exchange_that_ended_no_longer_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    rested: list[float] = []
    monkeypatch.setattr(time, "sleep", rested.append)

    async def read_after_the_end() -> None:
        gathering = Gathering()
        with ExitStack() as exchanges:
            for _ in range(16):
                exchanges.enter_context(gathering.exchange())
        gathering.arrived()
        await asyncio.sleep(0)

    asyncio.run(read_after_the_end())
    assert rested == []


@pytest.mark.parametrize("num_steps", range(6))
def test_an_exchange_that_is_cancelled_while_it_connects_ends_and_closes_its_connection(
    monkeypatch: pytest.MonkeyPatch, num_steps: int
) -> None:
    """Whenever that is: asyncio.wait_for, up to Python 3.11, forgets a cancellation that comes with the result."""

    async def scenario() -> None:
        loop, closed = asyncio.get_running_loop(), asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()  # to its end
            closed.set()
            writer.close()

        def cancel_after(steps: int) -> None:
            loop.call_soon(cancel_after, steps - 1) if steps else asking.cancel()

        made = http_stream._HttpStream.connection_made

        def connection_made(self: http_stream._HttpStream, transport: asyncio.BaseTransport) -> None:
            made(self, transport)
            cancel_after(num_steps)

        monkeypatch.setattr(http_stream._HttpStream, "connection_made", connection_made)
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            gathering = http_stream.Gathering()
            asking = asyncio.ensure_future(
                http_stream.post(f"http://127.0.0.1:{port}/", b"{}", gathering, lambda status: lambda data: False)
            )
            done, _ = await asyncio.wait({asking}, timeout=2)
            asking.cancel()
            assert done, "it goes on"
            assert asking.cancelled()
            await asyncio.wait_for(closed.wait(), 2)

    asyncio.run(scenario())


@pytest.mark.parametrize("complete", [True, False])
def test_an_answer_that_is_over_before_anybody_reads_is_still_there(complete: bool) -> None:
    """A quick engine answers, errors above all, and closes before the task that asked has run again."""
    received: list[bytes] = []

    def on_body(data: bytes) -> bool:
        received.append(data)
        return False

    async def scenario() -> None:
        asked = http_stream._HttpStream(b"", http_stream.Gathering())
        asked.data_received(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 4\r\n\r\n" + (b"boom" if complete else b"bo"))
        asked.connection_lost(None)
        assert await asked.status == 400
        asked.read(on_body)
        await asked.finished

    if complete:
        asyncio.run(scenario())
        assert received == [b"boom"]
    else:
        with pytest.raises(EngineUnavailable):
            asyncio.run(scenario())
