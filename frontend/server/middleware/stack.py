"""What a request passes before it reaches a route, and its answer on the way back.

Refuses to see the body of a stream: DirectSend leads it past all of them.
"""

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from frontend.server.asgi_send import DirectSend

from .api_keys import ApiKey
from .auth import Access, CallerLimits
from .request_ids import RequestIds

_EXPOSED_HEADERS = ("x-request-id", "x-ignored-params", "retry-after")
"""What a script in a browser may read beside the body."""


def with_middleware(
    app: ASGIApp, api_keys: Sequence[ApiKey] = (), limits: CallerLimits | None = None, cors_origins: Sequence[str] = ()
) -> ASGIApp:
    """The application as a server runs it.

    The request id is outermost, so that no answer is without it; CORS is outside of access, because a browser asks
    without a key whether it may ask, and shows a refusal only to a page that may read it.
    """
    layers: ASGIApp = Access(app, api_keys, limits or CallerLimits())
    if cors_origins:
        layers = CORSMiddleware(
            layers,
            allow_origins=cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=_EXPOSED_HEADERS,
        )
    return DirectSend(RequestIds(layers))
