"""The answer to a request that no route gets, as its head cannot be read or is over a limit."""

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from frontend.errors import FrontendError, InvalidRequest

from .errors import error_response


def to_error(exc: httptools.HttpParserError) -> FrontendError:
    """The error that a callback of the parser raised, or `InvalidRequest` for what the parser cannot read."""
    cause = exc.__context__
    if isinstance(cause, FrontendError):
        return cause
    reason = "its URL cannot be read" if isinstance(exc, httptools.HttpParserCallbackError) else exc
    return InvalidRequest(f"This is not a valid HTTP request: {reason}.")


def to_bytes(error: FrontendError, default_headers: list[tuple[bytes, bytes]], path: str = "") -> bytes:
    """The whole HTTP response, which says that the connection is closed after it. `path` is empty if not known."""
    response = error_response(error, path)
    headers = [*default_headers, *response.raw_headers, (b"connection", b"close")]
    lines = [b"%b: %b\r\n" % header for header in headers]
    return b"".join([STATUS_LINE[error.status], *lines, b"\r\n", bytes(response.body)])
