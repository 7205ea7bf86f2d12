"""The argument that FastAPI passes to every route."""

from typing import Annotated

from fastapi import Depends, Request

from frontend.server.service import Service


async def _service(http: Request) -> Service:
    """A coroutine: FastAPI would run a plain function in a thread for every request."""
    service: Service = http.app.state.service
    return service


ServiceOf = Annotated[Service, Depends(_service)]
