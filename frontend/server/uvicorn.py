"""uvicorn's settings, how it ends, and HTTPS where there is a certificate.

OpenSSL never asks a terminal for a password.
"""

import asyncio
import logging
import signal
import socket
import ssl
import time
from collections.abc import Callable
from types import FrameType
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from frontend.errors import StartupError
from frontend.settings import Settings

from .connection import Connection
from .drain import ONE_SIGNAL_S, Drain
from .secret_files import check_secret_file

_log = logging.getLogger(__name__)

_KEEP_ALIVE_S = 5
"""How long a connection may wait for its next request. uvicorn's default, and so vLLM's."""

_CHECK_INTERVAL_S = 1.0
_DRAIN_CHECK_INTERVAL_S = 0.1

_LAST_ANSWERS_S = 2
"""Time to send the errors of requests that were cut off, and then to empty the buffers of connections."""


class Server(uvicorn.Server):
    """uvicorn's server, which checks less often whether to end, and ends in order: see `Drain`.

    After SIGTERM it still serves new requests for `drain_seconds`, after SIGINT for 0. Then running answers have
    `shutdown_timeout_s`. uvicorn itself checks ten times a second, which is most of the CPU time of an idle process.
    """

    def __init__(
        self, config: uvicorn.Config, drain: Drain, shutdown_timeout_s: float, drain_seconds: float = 0.0
    ) -> None:
        super().__init__(config)
        self._drain = drain
        self._shutdown_timeout_s = shutdown_timeout_s
        self._drain_seconds = drain_seconds
        self._signalled_at = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal takes readiness away at once; a second one ends all waiting.

        uvicorn would send the signal to this process again when it has ended, so that its exit status is not 0.
        """
        now = time.monotonic()
        if not self.should_exit:
            self.should_exit, self._signalled_at = True, now
            self._drain.announce(self._drain_seconds if sig == signal.SIGTERM else 0.0)
        elif now - self._signalled_at > ONE_SIGNAL_S:
            self.force_exit = True

    async def main_loop(self) -> None:
        """Serve until a signal, and after SIGTERM for the time that `Drain` says.

        `on_tick` renews the headers of all answers when its counter is a multiple of 10, so it gets 0.
        """
        while not await self.on_tick(0):
            await asyncio.sleep(_CHECK_INTERVAL_S)
        if self._drain.serves_for_s:
            _log.info("not ready any more; new requests are served for %.1f s", self._drain.serves_for_s)
        while self._drain.serves_for_s and not self.force_exit:
            await self.on_tick(0)
            # A client that keeps its connection would send its next request here again.
            self.server_state.default_headers.append((b"connection", b"close"))
            await asyncio.sleep(_DRAIN_CHECK_INTERVAL_S)

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
