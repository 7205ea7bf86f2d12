"""Parts of the OpenAPI description that FastAPI does not see: bodies that routes read themselves, streams, errors.

404 and 405 of an unknown path or method belong to no route, so they are not listed.
"""

from collections.abc import Mapping
from itertools import groupby
from operator import attrgetter
from typing import Any

from pydantic import BaseModel

from frontend.anthropic.types import MessagesErrorBody
from frontend.errors import (
    BodyTooLarge,
    CompilerBusy,
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    FrontendError,
    InvalidApiKey,
    InvalidRequest,
    ModelNotFound,
    QueueFull,
    RateLimitExceeded,
    UnsupportedMediaType,
    UnsupportedParameter,
)
from frontend.openai.fields import ErrorBody

Responses = dict[int | str, dict[str, Any]]


def documented(body: type[BaseModel], example: Mapping[str, Any]) -> dict[str, Any]:
    """The request body of a route that reads it by itself. app.py adds the schema.

    An `example` without a `model` gets a served one.
    """
    schema = {"$ref": f"#/components/schemas/{body.__name__}"}
    content = {"application/json": {"schema": schema, "example": dict(example)}}
    return {"requestBody": {"required": True, "content": content}}


def failures(*kinds: type[FrontendError]) -> Responses:
    """A response for each status of these errors."""
    by_status = groupby(sorted(kinds, key=attrgetter("status")), key=attrgetter("status"))
    return {
        status: {
            "model": ErrorBody,
            "description": " ".join((kind.__doc__ or "").partition("\n")[0] for kind in of_status),
        }
        for status, of_status in by_status
    }


def generates(events: str) -> Responses:
    """The responses of a route that generates: one JSON body, or a stream that ends with `events`."""
    stream = {"schema": {"type": "string"}, "example": f"data: ...\n\n{events}\n\n"}
    return _FAILURES_OF_GENERATING | {
        200: {
            "description": "The answer: one JSON body, or with `stream` server-sent events.",
            "content": {"text/event-stream": stream},
        }
    }


def with_anthropics_errors(responses: Responses) -> Responses:
    """The same responses with Anthropic's error body."""
    return {
        status: response | {"model": MessagesErrorBody} if "model" in response else response
        for status, response in responses.items()
    }


UP_OR_DOWN: Responses = {
    200: {"description": "Yes. No body."},
    503: {"description": "No. No body."},
}

READS: Responses = failures(InvalidApiKey, FrontendError)
"""The errors of every route except the health checks that need no key."""

TAKES_A_BODY: Responses = failures(
    InvalidRequest, UnsupportedParameter, InvalidApiKey, ModelNotFound, BodyTooLarge, UnsupportedMediaType,
    RateLimitExceeded, FrontendError,
)  # fmt: skip
"""The errors of every route that reads a body."""

_FAILURES_OF_GENERATING = TAKES_A_BODY | failures(
    InvalidRequest, UnsupportedParameter, ContextLengthExceeded, RateLimitExceeded, QueueFull, FrontendError,
    EngineFailed, EngineUnavailable, CompilerBusy, DeadlineExceeded,
)  # fmt: skip
