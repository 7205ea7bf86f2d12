"""The routes, and the one place where errors become answers.

Refuses to generate: answers.py does. Refuses to open connections: it is handed a Service that is ready.
"""

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from frontend.errors import FrontendError, MethodNotAllowed, NotFound, to_frontend_error
from frontend.openai.chat.types import ChatCompletionRequest
from frontend.openai.completions.types import CompletionRequest
from frontend.openai.responses.types import ResponsesRequest
from frontend.openai.tokenize.types import DetokenizeRequest, TokenizeRequest
from frontend.server.routes import generate, health, models, tokenize

from .disconnect import ClientDisconnected
from .service import Service
from .streaming import error_response

_log = logging.getLogger(__name__)

_REF = "#/components/schemas/{model}"

_DOCUMENTED: Sequence[type[BaseModel]] = (
    ChatCompletionRequest, CompletionRequest, ResponsesRequest, TokenizeRequest, DetokenizeRequest,
)  # fmt: skip

router = APIRouter()
for part in (generate, models, health, tokenize):
    router.include_router(part.router)


def create_app(service: Service) -> FastAPI:
    """The application, ready to serve."""
    app = FastAPI(title="Mixtral on Triton", description="OpenAI's chat API.", redoc_url=None)
    app.state.service = service
    app.include_router(router)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)
    app.add_exception_handler(ClientDisconnected, _answer_nobody)
    app.add_exception_handler(FrontendError, _answer_error)
    app.add_exception_handler(Exception, _answer_error)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


async def _answer_error(http: Request, exc: Exception) -> Response:
    """Every failure of ours. What is not a FrontendError is a bug, and Starlette logs it after this."""
    return error_response(to_frontend_error(exc))


async def _answer_http_exception(http: Request, exc: Exception) -> Response:
    """Starlette's own: no such route, or not with this method."""
    route = f"{http.method} {http.url.path}"
    if isinstance(exc, HTTPException) and exc.status_code == 405:
        return error_response(MethodNotAllowed(f"{route} is not allowed.", allowed=(exc.headers or {})["Allow"]))
    return error_response(NotFound(f"There is no {route}."))


async def _answer_nobody(http: Request, exc: Exception) -> Response:
    """The client left before its request was one that can be answered. 499 is nginx's word for that."""
    _log.info("%s %s: 499, the client left", http.method, http.url.path)
    return Response(status_code=499)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's description, without the status that it believes in, and with what it cannot know.

    That is the types of the bodies, which the routes read by themselves to keep the limits; the keys, which access.py
    checks; and the names of the model.
    """
    if app.openapi_schema is None:
        description = get_openapi(title=app.title, version=app.version, routes=app.routes)
        names = list(app.state.service.model_names)
        description["components"]["schemas"] |= _bodies(names)
        for unused in ("HTTPValidationError", "ValidationError"):
            description["components"]["schemas"].pop(unused, None)
        for operation in [operation for path in description["paths"].values() for operation in path.values()]:
            operation["responses"].pop("422", None)
            if body := operation.get("requestBody"):
                body["content"]["application/json"]["example"]["model"] = names[0]
            for parameter in operation.get("parameters", ()):
                parameter["schema"]["enum"] = names
        description["components"]["securitySchemes"] = {"api_key": {"type": "http", "scheme": "bearer"}}
        description["security"] = [{"api_key": []}, {}]
        app.openapi_schema = description
    return app.openapi_schema


def _bodies(model_names: list[str]) -> dict[str, Any]:
    """The schemas of the request bodies; where there must be a model, it is one of these."""
    _, description = models_json_schema([(body, "validation") for body in _DOCUMENTED], ref_template=_REF)
    schemas: dict[str, Any] = description["$defs"]
    for body in _DOCUMENTED:
        if "model" in schemas[body.__name__].get("required", ()):
            schemas[body.__name__]["properties"]["model"]["enum"] = model_names
    return schemas
