"""OpenAI's error object."""

from frontend.errors import FrontendError


def to_error_body(error: FrontendError) -> dict[str, dict[str, str | None]]:
    """The nested error body: `{"error": {"message", "type", "param", "code"}}`."""
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}
