"""uvicorn's settings, and HTTPS where there is a certificate. OpenSSL never asks a terminal for a password."""

import asyncio
import ssl

import uvicorn
from starlette.types import ASGIApp

from frontend.errors import StartupError
from frontend.settings import Settings


class Server(uvicorn.Server):
    """uvicorn's server checks ten times a second whether to end. That is most of the CPU time of an idle process."""

    async def main_loop(self) -> None:
        """Check once a second. `on_tick` renews the Date header when its counter is a multiple of 10, so it gets 0."""
        while not await self.on_tick(0):
            await asyncio.sleep(1)


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """None without a certificate. Raises StartupError with the files and the reason."""
    if settings.ssl_certfile is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password OpenSSL would ask the terminal for one.
        context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, settings.ssl_keyfile_password)
    except OSError as exc:  # ssl.SSLError is one
        files = " with ".join(str(file) for file in (settings.ssl_certfile, settings.ssl_keyfile) if file)
        raise StartupError(f"cannot serve HTTPS with {files}: {exc.strerror or exc}") from exc
    return context


def uvicorn_config(app: ASGIApp, settings: Settings, tls: ssl.SSLContext | None) -> uvicorn.Config:
    """All of uvicorn's settings."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=settings.shutdown_timeout_s,
        ssl_context_factory=None if tls is None else lambda *_: tls,
    )
