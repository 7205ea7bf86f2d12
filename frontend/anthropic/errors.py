"""Anthropic's error object, which all errors of its routes have."""

from collections.abc import Mapping
from typing import Any

from frontend.errors import FrontendError

_ROUTE = "/v1/messages"

_DETAILS: Mapping[str, Mapping[str, Any]] = {
    "thread": {"error_code": "thread_unsupported_request"},
}
"""By parameter. With these details Anthropic's client (2.14, lib/threads) sends the whole conversation instead."""

_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""By status. Anthropic's own status for `overloaded_error` is 529; 503 is the one that proxies know."""


def is_anthropics(path: str) -> bool:
    """Whether a path belongs to this API, so that its errors have Anthropic's shape; an unknown path below it too."""
    return path == _ROUTE or path.startswith(f"{_ROUTE}/")


def to_error_body(error: FrontendError, request_id: str | None = None) -> dict[str, Any]:
    """The error body. It has no field for the parameter, so the message begins with one that it does not name."""
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    names_it = error.param is None or f"`{error.param}`" in error.message
    message = error.message if names_it else f"`{error.param}`: {error.message}"
    found = _DETAILS.get(error.param or "")
    details = {} if found is None else {"details": found}
    return {"type": "error", "error": {"type": kind, "message": message, **details}, "request_id": request_id}
