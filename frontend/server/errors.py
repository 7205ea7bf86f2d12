"""Errors to HTTP responses. Once a stream has started, the job's writer makes an event of the error instead."""

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Scope

from frontend.anthropic import errors as anthropic
from frontend.errors import FrontendError, InvalidRequest, MethodNotAllowed, NotFound
from frontend.openai.errors import to_error_body

from .disconnect import ClientDisconnected
from .log import REQUEST_ID
from .request_record import record_of


def to_frontend_error(exc: Exception) -> FrontendError:
    """`exc` if a client may see it. Any other exception is a bug here, and becomes an error without details."""
    return exc if isinstance(exc, FrontendError) else FrontendError("The server had an error. It has been logged.")


def error_response(error: FrontendError, path: str = "") -> Response:
    """Status, headers and the error body: Anthropic's for a path of its API, else OpenAI's."""
    body = (
        anthropic.to_error_body(error, REQUEST_ID.get(None)) if anthropic.is_anthropics(path) else to_error_body(error)
    )
    return Response(orjson.dumps(body), error.status, error.headers, "application/json")


def answer_error(scope: Scope, error: FrontendError) -> Response:
    """The response, with the error noted for the log and the metrics."""
    record_of(scope).fail(error)
    return error_response(error, scope["path"])


def add_error_handlers(app: FastAPI) -> None:
    """Register the handlers of this module for all exceptions of routes."""
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(RequestValidationError, _answer_wrong_query)
    app.add_exception_handler(ClientDisconnect, _answer_disconnect)
    app.add_exception_handler(ClientDisconnected, _answer_disconnect)
    app.add_exception_handler(FrontendError, _answer_error)
    app.add_exception_handler(Exception, _answer_error)


async def _answer_error(http: Request, exc: Exception) -> Response:
    """An exception that is not a FrontendError is a bug; Starlette logs it after this."""
    return answer_error(http.scope, to_frontend_error(exc))


async def _answer_http_exception(http: Request, exc: Exception) -> Response:
    """Starlette's own exceptions: no such route, or not with this method."""
    route = f"{http.method} {http.url.path}"
    if isinstance(exc, HTTPException) and exc.status_code == 405:
        allowed = (exc.headers or {})["Allow"]
        return answer_error(http.scope, MethodNotAllowed(f"{route} is not allowed.", allowed=allowed))
    return answer_error(http.scope, NotFound(f"There is no {route}."))


async def _answer_wrong_query(http: Request, exc: Exception) -> Response:
    """FastAPI checks the parameters in URLs; bodies are checked by their routes."""
    assert isinstance(exc, RequestValidationError)
    first = exc.errors()[0]
    param = str(first["loc"][-1])
    return answer_error(http.scope, InvalidRequest(f"Invalid `{param}`: {first['msg']}.", param=param))


async def _answer_disconnect(http: Request, exc: Exception) -> Response:
    """The client disconnected before its request was complete or compiled. 499 is nginx's status for that."""
    return Response(status_code=499)
