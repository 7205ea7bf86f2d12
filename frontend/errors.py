"""The failures a client can be told of, each with its status, type, code and param; mapped to an answer in one place.

    FrontendError                     500  server_error
    ├── InvalidRequest                400  invalid_request_error
    │   ├── UnsupportedParameter      400    code unsupported_parameter
    │   ├── ContextLengthExceeded     400    code context_length_exceeded
    │   ├── InvalidApiKey             401    code invalid_api_key
    │   ├── NotFound                  404
    │   │   └── ModelNotFound         404    code model_not_found
    │   ├── MethodNotAllowed          405
    │   ├── BodyTooLarge              413
    │   └── UnsupportedMediaType      415
    ├── RateLimitExceeded             429  rate_limit_error, code rate_limit_exceeded
    │   └── QueueFull                 429
    ├── EngineFailed                  500  server_error
    ├── EngineUnavailable             503  server_error, code engine_unavailable
    └── DeadlineExceeded              504  server_error, code timeout
    StartupError                      no answer: there is nobody to tell but the operator

Refuses to carry an engine's own words to a client: whoever raises logs them and passes a sentence of ours.
"""

from collections.abc import Mapping, Sequence


class FrontendError(Exception):
    """Something went wrong that has a place in OpenAI's vocabulary of errors. `headers` go with its answer."""

    status = 500
    type = "server_error"
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = {}

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param or self.param


class InvalidRequest(FrontendError):
    """The client's mistake; `param` names the field."""

    status = 400
    type = "invalid_request_error"


class UnsupportedParameter(InvalidRequest):
    """A parameter that is known and cannot be honoured: refused, never ignored."""

    code = "unsupported_parameter"


class ContextLengthExceeded(InvalidRequest):
    """Prompt and answer do not fit the engine's context."""

    code = "context_length_exceeded"
    param = "messages"


class InvalidApiKey(InvalidRequest):
    """No API key, or none that is known."""

    status = 401
    code = "invalid_api_key"
    headers: Mapping[str, str] = {"www-authenticate": "Bearer"}


class NotFound(InvalidRequest):
    """No such route."""

    status = 404


class ModelNotFound(NotFound):
    """The model asked for is not served; the message lists what is."""

    code = "model_not_found"
    param = "model"

    def __init__(self, model: str, served_model_names: Sequence[str]) -> None:
        served = ", ".join(f"`{name}`" for name in served_model_names)
        super().__init__(f"The model `{model}` does not exist. Served here: {served}.")


class MethodNotAllowed(InvalidRequest):
    """The route exists, the method does not; the answer says which do."""

    status = 405

    def __init__(self, message: str, *, allowed: str) -> None:
        super().__init__(message)
        self.headers = {"allow": allowed}


class BodyTooLarge(InvalidRequest):
    """More bytes than the operator allows."""

    status = 413


class UnsupportedMediaType(InvalidRequest):
    """A body that says it is not JSON."""

    status = 415


class RateLimitExceeded(FrontendError):
    """A caller has used up what it is allowed; the answer says when to come back."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.headers = {"retry-after": str(retry_after_s)}


class QueueFull(RateLimitExceeded):
    """As many generations wait as are allowed to; nothing was queued."""


class EngineFailed(FrontendError):
    """The engine refused or broke off a request that was right by its contract."""


class EngineUnavailable(FrontendError):
    """Triton cannot be reached, has gone away, or takes no more requests."""

    status = 503
    code = "engine_unavailable"
    headers: Mapping[str, str] = {"retry-after": "1"}


class DeadlineExceeded(FrontendError):
    """The answer took longer than the operator allows."""

    status = 504
    code = "timeout"


class StartupError(Exception):
    """The frontend cannot start; the message is one line for the operator."""


def to_body(error: FrontendError) -> dict[str, dict[str, str | None]]:
    """OpenAI's nested error body."""
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def to_frontend_error(exc: Exception) -> FrontendError:
    """`exc` if a client may see it; otherwise it is a bug of ours, and says no more than that."""
    return exc if isinstance(exc, FrontendError) else FrontendError("The server had an error. It has been logged.")
