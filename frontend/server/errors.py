"""Errors to HTTP responses. Once a stream has started, the job's writer makes an event of the error instead."""

import logging

import orjson
from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from frontend.errors import FrontendError, MethodNotAllowed, NotFound, RateLimitExceeded
from frontend.openai.errors import to_error_body

from .disconnect import ClientDisconnected

_log = logging.getLogger(__name__)


def to_frontend_error(exc: Exception) -> FrontendError:
    """`exc` if a client may see it. Any other exception is a bug here, and becomes an error without details."""
    return exc if isinstance(exc, FrontendError) else FrontendError("The server had an error. It has been logged.")


def error_response(error: FrontendError) -> Response:
    """Status, headers and OpenAI's error body."""
    return Response(orjson.dumps(to_error_body(error)), error.status, error.headers, "application/json")


def add_error_handlers(app: FastAPI) -> None:
    """Register the handlers of this module for all exceptions of routes."""
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(ClientDisconnect, _log_disconnect)
    app.add_exception_handler(ClientDisconnected, _log_disconnect)
    app.add_exception_handler(FrontendError, _answer_error)
    app.add_exception_handler(Exception, _answer_error)


async def _answer_error(http: Request, exc: Exception) -> Response:
    """An exception that is not a FrontendError is a bug; Starlette logs it after this."""
    if isinstance(exc, RateLimitExceeded):
        _log.info(
            "%s %s from %s: %d %s",
            http.method,
            http.url.path,
            http.scope.get("state", {}).get("caller", "unknown"),
            exc.status,
            exc.message,
        )
    return error_response(to_frontend_error(exc))


async def _answer_http_exception(http: Request, exc: Exception) -> Response:
    """Starlette's own exceptions: no such route, or not with this method."""
    route = f"{http.method} {http.url.path}"
    if isinstance(exc, HTTPException) and exc.status_code == 405:
        return error_response(MethodNotAllowed(f"{route} is not allowed.", allowed=(exc.headers or {})["Allow"]))
    return error_response(NotFound(f"There is no {route}."))


async def _log_disconnect(http: Request, exc: Exception) -> Response:
    """The client disconnected before its request was complete or compiled. 499 is nginx's status for that."""
    _log.info("%s %s: 499, the client left", http.method, http.url.path)
    return Response(status_code=499)
