"""What a request passes before it reaches a route, and its answer on the way back, in this order.

Refuses to see the body of a stream: DirectSend leads it past all of them.
"""

from starlette.types import ASGIApp

from .request_ids import RequestIds
from .sender import DirectSend


def with_layers(app: ASGIApp) -> ASGIApp:
    """The application as a server runs it."""
    return DirectSend(RequestIds(app))
