"""The routes, and the one place where errors become answers.

Refuses to generate: responses.py does. Refuses to open connections: it is handed a Service that is ready.
"""

import asyncio
import logging
import secrets
import time
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from .chat import Reply, to_generation_request
from .dependencies import ServiceOf
from .errors import (
    BodyTooLarge,
    FrontendError,
    InvalidRequest,
    MethodNotAllowed,
    ModelNotFound,
    NotFound,
    UnsupportedMediaType,
    to_frontend_error,
)
from .generation import GenerationRequest
from .operations import router as operations
from .parameters import ignored_params
from .protocol import ChatCompletion, ChatCompletionRequest, ErrorBody, ModelCard, ModelList
from .responses import StreamResponse, WholeResponse, error_response
from .service import Service

_log = logging.getLogger(__name__)

_OFF_LOOP_BYTES = 16 * 1024
"""A body from this size on is encoded in a thread: tokenizing it would hold up every stream for milliseconds."""

_MAX_NAMES_IN_HEADER = 32

_REQUEST_SCHEMA = "#/components/schemas/{model}"

router = APIRouter(responses={"4XX": {"model": ErrorBody}, "5XX": {"model": ErrorBody}})


@router.post(
    "/v1/chat/completions",
    response_model=ChatCompletion,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": _REQUEST_SCHEMA.format(model="ChatCompletionRequest")}}
            },
        }
    },
)
async def create_chat_completion(http: Request, service: ServiceOf) -> Response:
    """Answer a conversation: as one JSON body, or with `stream` as server-sent events."""
    raw = await _read_body(http, service.max_body_bytes)
    body = _parse(raw)
    if body.model not in service.model_names:
        raise ModelNotFound(body.model, service.model_names)
    request = await _to_request(body, service, len(raw))
    reply = Reply(id=f"cmpl-{secrets.token_hex(16)}", created=int(time.time()), model=body.model)
    headers = _report_ignored(body, reply)
    if not body.stream:
        return WholeResponse(service, request, reply, headers)
    include_usage = body.stream_options is not None and body.stream_options.include_usage
    return StreamResponse(service, request, reply, headers, include_usage=include_usage)


@router.get("/v1/models")
async def list_models(service: ServiceOf) -> ModelList:
    """The names that `model` may have."""
    return ModelList(data=[_model_card(name, service) for name in service.model_names])


@router.get("/v1/models/{model:path}")
async def retrieve_model(model: str, service: ServiceOf) -> ModelCard:
    """One served name; slashes are part of it."""
    for name in service.model_names:
        # A name that begins with a slash loses it to clients and proxies that tidy URLs.
        if model in (name, name.removeprefix("/")):
            return _model_card(name, service)
    raise ModelNotFound(model, service.model_names)


def create_app(service: Service) -> FastAPI:
    """The application, ready to serve."""
    app = FastAPI(title="Mixtral on Triton", description="OpenAI's chat API.", redoc_url=None)
    app.state.service = service
    app.include_router(router)
    app.include_router(operations)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)
    app.add_exception_handler(FrontendError, _answer_error)
    app.add_exception_handler(Exception, _answer_error)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


async def _read_body(http: Request, max_bytes: int) -> bytes:
    """The body, never more of it than allowed."""
    content_type = http.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if content_type != "application/json" and not content_type.endswith("+json"):
        raise UnsupportedMediaType(f"The body must be application/json, not {content_type}.")
    body = bytearray()
    async for piece in http.stream():
        body += piece
        if len(body) > max_bytes:
            raise BodyTooLarge(f"The body is larger than {max_bytes} bytes.")
    return bytes(body)


def _parse(raw: bytes) -> ChatCompletionRequest:
    try:
        return ChatCompletionRequest.model_validate_json(raw)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
        if not first["loc"]:
            raise InvalidRequest(f"The body is not a JSON object that can be read: {first['msg']}.") from exc
        param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])[1:]
        raise InvalidRequest(f"Invalid `{param}`: {first['msg']}.", param=param) from exc


async def _to_request(body: ChatCompletionRequest, service: Service, body_bytes: int) -> GenerationRequest:
    def translate() -> GenerationRequest:
        return to_generation_request(body, service.chat_model, random_seed=secrets.randbits(64))

    return translate() if body_bytes < _OFF_LOOP_BYTES else await asyncio.to_thread(translate)


def _report_ignored(body: ChatCompletionRequest, reply: Reply) -> dict[str, str]:
    """The header that tells which fields had no effect, quoted, as a client chose their names."""
    ignored = ignored_params(body)
    if not ignored:
        return {}
    names = ", ".join(quote(name[:100]) for name in ignored[:_MAX_NAMES_IN_HEADER])
    _log.info("%s ignored parameters: %s", reply.id, names)
    return {"x-ignored-params": names}


def _model_card(name: str, service: Service) -> ModelCard:
    max_model_len = service.chat_model.max_seq_len
    return ModelCard(id=name, created=service.started, owned_by="mixtral-triton", max_model_len=max_model_len)


async def _answer_error(http: Request, exc: Exception) -> Response:
    """Every failure of ours. What is not a FrontendError is a bug, and Starlette logs it after this."""
    return error_response(to_frontend_error(exc))


async def _answer_http_exception(http: Request, exc: Exception) -> Response:
    """Starlette's own: no such route, or not with this method."""
    route = f"{http.method} {http.url.path}"
    if isinstance(exc, HTTPException) and exc.status_code == 405:
        return error_response(MethodNotAllowed(f"{route} is not allowed."))
    return error_response(NotFound(f"There is no {route}."))


async def _answer_nobody(http: Request, exc: Exception) -> Response:
    """The client left while it was sending its body. 499 is nginx's word for that."""
    _log.info("%s %s: 499, the client left while it was sending its body", http.method, http.url.path)
    return Response(status_code=499)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's description and the type of the body, which the route reads by itself to keep the limits."""
    if app.openapi_schema is None:
        app.openapi_schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
        body = ChatCompletionRequest.model_json_schema(ref_template=_REQUEST_SCHEMA)
        app.openapi_schema["components"]["schemas"] |= body.pop("$defs") | {"ChatCompletionRequest": body}
    return app.openapi_schema
