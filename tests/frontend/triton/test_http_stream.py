"""The HTTP stream from Triton: cancelled at any moment, complete before anything reads it, reads coalesced."""

import asyncio
import time
from contextlib import ExitStack

import pytest

from frontend.errors import EngineUnavailable
from frontend.triton import http_stream


@pytest.mark.parametrize("num_steps", range(6))
def test_a_stream_that_is_cancelled_while_it_connects_ends_and_closes_its_connection(
    monkeypatch: pytest.MonkeyPatch, num_steps: int
) -> None:
    """At any step of the loop: asyncio.wait_for, up to Python 3.11, forgets one that comes with the result."""

    async def scenario() -> None:
        loop, closed = asyncio.get_running_loop(), asyncio.Event()
        coalescing = http_stream.ReadCoalescing()

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
            target = http_stream.Target.of(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", {})
            asking = asyncio.ensure_future(
                http_stream.post(target, b"{}", coalescing, lambda status: lambda data: False)
            )
            done, _ = await asyncio.wait({asking}, timeout=60)
            asking.cancel()
            assert done, "it goes on"
            assert asking.cancelled()
            await asyncio.wait_for(closed.wait(), 60)

    asyncio.run(scenario())


@pytest.mark.parametrize("complete", [True, False])
def test_a_response_that_is_complete_before_it_is_read_is_not_lost(complete: bool) -> None:
    """A fast engine answers, mostly with errors, and closes before the task that asked has run again."""
    received: list[bytes] = []

    def on_body(data: bytes) -> bool:
        received.append(data)
        return False

    async def scenario() -> None:
        asked = http_stream._HttpStream(b"", http_stream.ReadCoalescing())
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


@pytest.mark.parametrize(("num_open", "pauses"), [(0, 0), (15, 0), (16, 1), (64, 1)])
def test_with_many_open_streams_the_loop_pauses_once_for_all_that_arrived_together(
    num_open: int, pauses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pauses_after_reads(num_open, num_open, monkeypatch) == [0.002] * pauses


def test_a_stream_that_has_ended_no_longer_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pauses_after_reads(16, 15, monkeypatch) == []


def pauses_after_reads(num_opened: int, num_still_open: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses, in seconds, of an event loop that has read each open stream once."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)

    async def read_all() -> None:
        coalescing = http_stream.ReadCoalescing()
        with ExitStack() as streams:
            for _ in range(num_still_open):
                streams.enter_context(coalescing.stream())
            with ExitStack() as ended:
                for _ in range(num_opened - num_still_open):
                    ended.enter_context(coalescing.stream())
            for _ in range(num_still_open):
                coalescing.on_read()
            await asyncio.sleep(0)

    asyncio.run(read_all())
    return pauses
