"""The errors that clients get, each with its HTTP status, type, code and param.

    FrontendError                     500  server_error
    ├── InvalidRequest                400  invalid_request_error
    │   ├── UnsupportedParameter      400    code unsupported_parameter
    │   ├── ContextLengthExceeded     400    code context_length_exceeded
    │   ├── InvalidApiKey             401    code invalid_api_key
    │   ├── NotFound                  404
    │   │   ├── ModelNotFound         404    code model_not_found
    │   │   └── ResponseNotFound      404    code response_not_found
    │   ├── MethodNotAllowed          405
    │   ├── RequestTimeout            408
    │   ├── BodyTooLarge              413
    │   ├── UrlTooLong                414
    │   ├── UnsupportedMediaType      415
    │   │   └── UnsupportedEncoding   415
    │   ├── ExpectationFailed         417
    │   └── HeadersTooLarge           431
    ├── RateLimitExceeded             429  rate_limit_error, code rate_limit_exceeded
    │   ├── QueueFull                 429, or 503 (--queue-full-status)
    │   └── TooManyBodies             429
    ├── EngineFailed                  500  server_error
    ├── StoreFailed                   500  server_error, code store_failed
    ├── EngineUnavailable             503  server_error, code engine_unavailable
    │   └── EngineGone                503
    │       └── EngineHangs           503
    ├── TooManyConnections            503  server_error, code too_many_connections
    ├── ShuttingDown                  503  server_error, code shutting_down
    ├── CompilerBusy                  503  server_error, code compiler_busy
    └── DeadlineExceeded              504  server_error, code timeout
    StartupError                      no response: one line for the operator

An engine's own message never reaches a client: it is logged, and the error has a message of the frontend's.
"""

from collections.abc import Mapping, Sequence


class FrontendError(Exception):
    """An error in OpenAI's terms. `headers` are added to its response.

    `log_message` stands in the log in the place of a message that may quote a prompt.
    """

    status = 500
    type = "server_error"
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = {}

    def __init__(self, message: str, *, param: str | None = None, log_message: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param or self.param
        self.log_message = log_message or message


class InvalidRequest(FrontendError):
    """The client's mistake; `param` is the field."""

    status = 400
    type = "invalid_request_error"


class UnsupportedParameter(InvalidRequest):
    """A parameter of the API that is not supported here; it is refused, never ignored."""

    code = "unsupported_parameter"


class ContextLengthExceeded(InvalidRequest):
    """Prompt and answer together exceed the engine's context."""

    code = "context_length_exceeded"
    param = "messages"


class InvalidApiKey(InvalidRequest):
    """The API key is missing or unknown."""

    status = 401
    code = "invalid_api_key"
    headers: Mapping[str, str] = {"www-authenticate": "Bearer"}


class NotFound(InvalidRequest):
    """No such route."""

    status = 404


class ModelNotFound(NotFound):
    """The model is not served; the message lists those that are."""

    code = "model_not_found"
    param = "model"

    def __init__(self, model: str, served_model_names: Sequence[str]) -> None:
        served = ", ".join(f"`{name}`" for name in served_model_names)
        super().__init__(f"The model `{model}` does not exist. Served here: {served}.")


class ResponseNotFound(NotFound):
    """No such response is stored, or it is another key's."""

    code = "response_not_found"

    def __init__(self, response_id: str, *, param: str) -> None:
        super().__init__(
            f"No response `{response_id:.100}` is stored here: it was not stored, is too old, or was deleted.",
            param=param,
            log_message="no such response",
        )


class MethodNotAllowed(InvalidRequest):
    """The route exists, but not for this method; the header `allow` lists its methods."""

    status = 405

    def __init__(self, message: str, *, allowed: str) -> None:
        super().__init__(message)
        self.headers = {"allow": allowed}


class RequestTimeout(InvalidRequest):
    """The client has not sent all of its request in time."""

    status = 408


class BodyTooLarge(InvalidRequest):
    """More bytes than the operator allows."""

    status = 413


class UrlTooLong(InvalidRequest):
    """The request line is longer than allowed."""

    status = 414


class UnsupportedMediaType(InvalidRequest):
    """The content type of the body is not JSON."""

    status = 415


class UnsupportedEncoding(UnsupportedMediaType):
    """The body is compressed."""

    headers: Mapping[str, str] = {"accept-encoding": "identity"}


class ExpectationFailed(InvalidRequest):
    """The header `expect` asks for something other than `100-continue`."""

    status = 417


class HeadersTooLarge(InvalidRequest):
    """Too many headers, or too many bytes of them."""

    status = 431


class RateLimitExceeded(FrontendError):
    """A caller has reached its limit; the header `retry-after` has the seconds to wait."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.headers = {"retry-after": str(retry_after_s)}


class QueueFull(RateLimitExceeded):
    """The queue is full; nothing of the request was queued. `status` may be 503, for a balancer that tries another."""

    def __init__(self, message: str, *, status: int = RateLimitExceeded.status) -> None:
        super().__init__(message)
        self.status = status


class TooManyBodies(RateLimitExceeded):
    """The bodies that are being read take all the memory that this caller may have."""


class EngineFailed(FrontendError):
    """The engine refused or aborted a valid request."""


class StoreFailed(FrontendError):
    """The file of stored responses cannot be read or written; the operator's log says why."""

    code = "store_failed"


class EngineUnavailable(FrontendError):
    """Triton cannot be reached, has gone away, or accepts no more requests."""

    status = 503
    code = "engine_unavailable"
    headers: Mapping[str, str] = {"retry-after": "1"}


class EngineGone(EngineUnavailable):
    """Triton cannot be reached, or the connection broke off. To start again it needs some seconds, or minutes."""

    headers: Mapping[str, str] = {"retry-after": "10"}


class EngineHangs(EngineGone):
    """Triton runs, and has given up on the process of its engine."""


class TooManyConnections(FrontendError):
    """More connections are open than the operator allows."""

    status = 503
    code = "too_many_connections"
    headers: Mapping[str, str] = {"retry-after": "1"}


class ShuttingDown(FrontendError):
    """The frontend ends; `retry-after` has the seconds until it has ended."""

    status = 503
    code = "shutting_down"

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.headers = {"retry-after": str(retry_after_s), "connection": "close"}


class CompilerBusy(FrontendError):
    """More structured output waits to be compiled than the grammar compiler takes; nothing was queued."""

    status = 503
    code = "compiler_busy"
    headers: Mapping[str, str] = {"retry-after": "5"}


class DeadlineExceeded(FrontendError):
    """The answer took longer than the operator allows."""

    status = 504
    code = "timeout"


class StartupError(Exception):
    """The frontend cannot start; the message is one line for the operator."""
