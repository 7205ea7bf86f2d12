"""What FastAPI hands to a route: the service, and who calls.

Refuses to decide anything: access.py has, before the route is reached.
"""

from typing import Annotated

from fastapi import Depends, Request

from .service import Service


def _service(http: Request) -> Service:
    service: Service = http.app.state.service
    return service


def _caller(http: Request) -> str:
    caller: str = http.state.caller
    return caller


ServiceOf = Annotated[Service, Depends(_service)]
CallerOf = Annotated[str, Depends(_caller)]
"""The name of the API key, or the client's address: the key of its line in the queue."""
