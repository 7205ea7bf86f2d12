"""The middleware around the routes, in order. Bodies of generated responses bypass it: see DirectSend."""

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from frontend.server.asgi_send import DirectSend
from frontend.server.caller_limits import CallerLimits, RequestLimits
from frontend.server.drain import Drain
from frontend.server.request_log import log_answer

from .api_keys import ApiKey
from .auth import Auth
from .drain import RefuseInDrain
from .request_ids import RequestIds
from .request_records import OnArrival, Reporter, RequestRecords

_EXPOSED_HEADERS = ("x-request-id", "request-id", "x-ignored-params", "x-unguided-tools", "retry-after")
"""Response headers that a script in a browser may read."""


def with_middleware(
    app: ASGIApp,
    api_keys: Sequence[ApiKey] = (),
    limits: RequestLimits | None = None,
    cors_origins: Sequence[str] = (),
    drain: Drain | None = None,
    reporters: Sequence[Reporter] = (log_answer,),
    on_arrival: OnArrival | None = None,
) -> ASGIApp:
    """The application with its middleware.

    The request id is outermost, so that every response has it, and every line of the log. `reporters` get the record of
    each request at its end, `on_arrival` at its beginning. CORS is outside of the API keys: a browser's preflight
    request has no key, and a page may read a 401 only with CORS headers. A server that ends asks for no key any more.
    """
    guarded: ASGIApp = RefuseInDrain(Auth(app, api_keys, limits or CallerLimits()), drain or Drain())
    if cors_origins:
        guarded = CORSMiddleware(
            guarded,
            allow_origins=cors_origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("*",),
            expose_headers=_EXPOSED_HEADERS,
        )
    return DirectSend(RequestIds(RequestRecords(guarded, reporters, on_arrival)))
