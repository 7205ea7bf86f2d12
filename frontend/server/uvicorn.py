"""uvicorn's settings, how it ends, and HTTPS where there is a certificate.

OpenSSL never asks a terminal for a password.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from frontend.errors import StartupError
from frontend.settings import Settings

from .connection import Connection
from .drain import Drain
from .secret_files import check_secret_file

_log = logging.getLogger(__name__)

_KEEP_ALIVE_S = 5
"""How long a connection may wait for its next request. uvicorn's default, and so vLLM's."""

_LAST_ANSWERS_S = 2
"""Time to send the errors of requests that were cut off, and then to empty the buffers of connections."""


class Server(uvicorn.Server):
    """uvicorn's server, which checks less often whether to end, and tells clients that it ends.

    uvicorn checks ten times a second. That is most of the CPU time of an idle process.
    """

    def __init__(self, config: uvicorn.Config, drain: Drain, shutdown_timeout_s: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._shutdown_timeout_s = shutdown_timeout_s

    async def main_loop(self) -> None:
        """Check once a second. `on_tick` renews the Date header when its counter is a multiple of 10, so it gets 0."""
        while not await self.on_tick(0):
            await asyncio.sleep(1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let running requests finish, and cancel those that do not in time: they send an error, and all is closed.

        Until then the port stays open, so that new requests get an answer: `RefuseInDrain` gives it.
        """
        self._drain.begin(self._shutdown_timeout_s)
        running = set(self.server_state.tasks)
        _log.info("ending: %d requests have %g s to finish", len(running), self._shutdown_timeout_s)
        for connection in list(self.server_state.connections):
            connection.shutdown()
        running = await self._wait(running, self._shutdown_timeout_s)
        for task in running:
            task.cancel()
        await self._wait(running, _LAST_ANSWERS_S)
        await super().shutdown(sockets)

    async def _wait(self, tasks: set[asyncio.Task[None]], timeout_s: float) -> set[asyncio.Task[None]]:
        """Those that have not ended within the time, or when a second Ctrl-C sets `force_exit`."""
        give_up = asyncio.get_running_loop().time() + timeout_s
        while tasks and not self.force_exit and asyncio.get_running_loop().time() < give_up:
            _, tasks = await asyncio.wait(tasks, timeout=0.1)
        return tasks


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """None without a certificate. Raises StartupError with the files and the reason."""
    if settings.ssl_certfile is None:
        return None
    check_secret_file(settings.ssl_keyfile or settings.ssl_certfile)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password OpenSSL would ask the terminal for one.
        context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, settings.ssl_keyfile_password)
    except OSError as exc:  # ssl.SSLError is one
        files = " with ".join(str(file) for file in (settings.ssl_certfile, settings.ssl_keyfile) if file)
        raise StartupError(f"cannot serve HTTPS with {files}: {exc.strerror or exc}") from exc
    return context


def uvicorn_config(
    app: ASGIApp, settings: Settings, tls: ssl.SSLContext | None, connection: Callable[..., Connection]
) -> uvicorn.Config:
    """All of uvicorn's settings. `connection` is called for each one: see `connection_factory`.

    Without `forwarded_allow_ips`, X-Forwarded-For is ignored. uvicorn itself would believe any client of this host.
    """
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=cast(type[asyncio.Protocol], connection),
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        proxy_headers=bool(settings.forwarded_allow_ips),
        forwarded_allow_ips=list(map(str, settings.forwarded_allow_ips)),
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_LAST_ANSWERS_S,  # what is left then; see `Server.shutdown`
        ssl_context_factory=None if tls is None else lambda *_: tls,
    )
