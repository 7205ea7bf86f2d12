"""The FastAPI application: routes, error handlers, OpenAPI description."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from frontend.anthropic.types import CountTokensRequest, MessagesRequest
from frontend.openai.chat.types import ChatCompletionRequest
from frontend.openai.completions.types import CompletionRequest
from frontend.openai.responses.types import ResponsesRequest
from frontend.openai.tokenize.types import DetokenizeRequest, TokenizeRequest

from .errors import add_error_handlers
from .routes import generate, health, models, pages, responses, tokenize
from .service import Service

_REF = "#/components/schemas/{model}"

_DOCUMENTED: Sequence[type[BaseModel]] = (
    ChatCompletionRequest, CompletionRequest, ResponsesRequest, MessagesRequest, CountTokensRequest, TokenizeRequest,
    DetokenizeRequest,
)  # fmt: skip
"""The types of bodies that routes read by themselves, so that FastAPI does not see them."""

router = APIRouter()
for module in (generate, responses, models, health, tokenize):
    router.include_router(module.router)


def create_app(service: Service, *, root_path: str = "", with_pages: bool = True) -> FastAPI:
    """The application, ready to serve; `with_pages` serves the pages for a browser too.

    `root_path` is the prefix of its URLs that a proxy in front removes.
    """
    app = FastAPI(
        title="Mixtral on Triton",
        description="OpenAI's chat API.",
        docs_url=None,  # FastAPI's page loads its scripts from elsewhere; see routes/pages.py
        redoc_url=None,
        redirect_slashes=False,  # Starlette would redirect to whatever the Host header names
    )
    app.root_path = root_path
    app.state.service = service
    app.include_router(router)
    if with_pages:
        app.include_router(pages.router)
    add_error_handlers(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's OpenAPI description, corrected.

    Added is what FastAPI does not see: the types of bodies, which routes read by themselves to keep the size limit; the
    API keys, which middleware/auth.py checks; and the served names. Removed is status 422, which no route returns.
    """
    if app.openapi_schema is None:
        description = get_openapi(title=app.title, version=app.version, routes=app.routes, servers=app.servers)
        names = list(app.state.service.model_names)
        description["components"]["schemas"] |= _bodies(names)
        for unused in ("HTTPValidationError", "ValidationError"):
            description["components"]["schemas"].pop(unused, None)
        for operation in [operation for path in description["paths"].values() for operation in path.values()]:
            operation["responses"].pop("422", None)
            if body := operation.get("requestBody"):
                body["content"]["application/json"]["example"]["model"] = names[0]
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "model":
                    parameter["schema"]["enum"] = names
        description["components"]["securitySchemes"] = {"api_key": {"type": "http", "scheme": "bearer"}}
        description["security"] = [{"api_key": []}, {}]
        app.openapi_schema = description
    return app.openapi_schema


def _bodies(model_names: list[str]) -> dict[str, Any]:
    """The schemas of the request bodies, with `model` as an enum of the served names."""
    _, description = models_json_schema([(body, "validation") for body in _DOCUMENTED], ref_template=_REF)
    schemas: dict[str, Any] = description["$defs"]
    for body in _DOCUMENTED:
        schemas[body.__name__]["properties"]["model"]["enum"] = [*model_names, None]
    return schemas
