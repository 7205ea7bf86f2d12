"""A server on a loopback port in the test's own loop, and clients that write bytes as they like."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import ASGIApp

from frontend.server.connection import connection_factory
from frontend.server.connection_counts import ConnectionCounts
from frontend.server.connection_limits import ConnectionLimits
from frontend.server.drain import Drain
from frontend.server.uvicorn import Server, uvicorn_config
from frontend.settings import Settings


def make_server(
    app: ASGIApp,
    limits: ConnectionLimits | None = None,
    counts: ConnectionCounts | None = None,
    drain: Drain | None = None,
    shutdown_timeout_s: float = 5,
    drain_seconds: float = 0,
) -> Server:
    """A server for any port of loopback, as __main__ makes it; not started."""
    connection = connection_factory(limits or ConnectionLimits(), counts or ConnectionCounts(100, 100))
    settings = Settings.from_args(["--engine-dir", "/engine", "--port", "0"], {})
    return Server(uvicorn_config(app, settings, None, connection), drain or Drain(), shutdown_timeout_s, drain_seconds)


@asynccontextmanager
async def serving(
    app: ASGIApp,
    limits: ConnectionLimits | None = None,
    counts: ConnectionCounts | None = None,
    drain: Drain | None = None,
    shutdown_timeout_s: float = 5,
    drain_seconds: float = 0,
) -> AsyncIterator[Server]:
    """The running server. Leaving the block ends it."""
    server = make_server(app, limits, counts, drain, shutdown_timeout_s, drain_seconds)
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup()  # not serve(), which looks once a second whether to end
    try:
        yield server
    finally:
        await server.shutdown()


class Client:
    """One connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, server: Server, address: str = "127.0.0.1") -> "Client":
        """From any address of the loopback network."""
        host, port = server.servers[0].sockets[0].getsockname()
        return cls(*await asyncio.open_connection(host, port, local_addr=(address, 0)))

    async def send(self, data: bytes) -> None:
        """Send, even if the server has closed the connection meanwhile."""
        with contextlib.suppress(ConnectionError):
            self._writer.write(data)
            await self._writer.drain()

    async def send_in_pieces(self, data: bytes, size: int) -> None:
        """Send `size` bytes at a time."""
        for begin in range(0, len(data), size):
            await self.send(data[begin : begin + size])
            await asyncio.sleep(0)

    async def read_until(self, mark: bytes) -> bytes:
        """Everything up to and with `mark`."""
        return await asyncio.wait_for(self._reader.readuntil(mark), 60)

    async def read_to_end(self) -> bytes:
        """Everything until the server closes the connection."""
        try:
            return await asyncio.wait_for(self._reader.read(), 60)
        except ConnectionError:
            return b""
        finally:
            await self.close()

    async def error(self) -> tuple[int, dict[str, Any], bytes]:
        """Status, OpenAI's error object and the head of an answer that the server closes the connection after."""
        head, _, content = (await self.read_to_end()).partition(b"\r\n\r\n")
        answer = json.loads(content)
        assert answer.keys() == {"error"}
        assert b"connection: close" in head
        return int(head.split()[1]), answer["error"], head

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
