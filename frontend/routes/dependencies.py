"""What FastAPI hands to a route."""

from typing import Annotated

from fastapi import Depends, Request

from frontend.service import Service


def _service(http: Request) -> Service:
    service: Service = http.app.state.service
    return service


ServiceOf = Annotated[Service, Depends(_service)]
