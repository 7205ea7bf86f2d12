"""Anthropic's error body, for every error of the frontend."""

import pytest

from frontend import errors
from frontend.anthropic.errors import is_anthropics, to_error_body


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.InvalidRequest("m"), "invalid_request_error"),
        (errors.InvalidApiKey("m"), "authentication_error"),
        (errors.NotFound("m"), "not_found_error"),
        (errors.MethodNotAllowed("m", allowed="POST"), "invalid_request_error"),
        (errors.BodyTooLarge("m"), "request_too_large"),
        (errors.RateLimitExceeded("m"), "rate_limit_error"),
        (errors.QueueFull("m"), "rate_limit_error"),
        (errors.FrontendError("m"), "api_error"),
        (errors.EngineFailed("m"), "api_error"),
        (errors.EngineUnavailable("m"), "overloaded_error"),
        (errors.ShuttingDown("m"), "overloaded_error"),
        (errors.CompilerBusy("m"), "overloaded_error"),
        (errors.DeadlineExceeded("m"), "timeout_error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_the_type_follows_from_the_status(error: errors.FrontendError, kind: str) -> None:
    assert to_error_body(error, "req_1") == {
        "type": "error",
        "error": {"type": kind, "message": "m"},
        "request_id": "req_1",
    }


def test_the_message_names_the_field_once() -> None:
    unnamed = errors.InvalidRequest("A name is needed.", param="tools[0].name")
    assert to_error_body(unnamed)["error"]["message"] == "`tools[0].name`: A name is needed."
    named = errors.InvalidRequest("Invalid `top_p`: too large.", param="top_p")
    assert to_error_body(named)["error"]["message"] == "Invalid `top_p`: too large."


@pytest.mark.parametrize(
    ("path", "belongs"),
    [
        ("/v1/messages", True),
        ("/v1/messages/count_tokens", True),
        ("/v1/messages/batches", True),
        ("/v1/messagesx", False),
        ("/v1/chat/completions", False),
        ("", False),
    ],
)
def test_paths_of_the_api(path: str, belongs: bool) -> None:
    assert is_anthropics(path) is belongs
