"""Cancel work when its client disconnects, when it takes longer than the operator allows, or when the server ends."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

from frontend.errors import DeadlineExceeded, ShuttingDown

from .drain import CUT_OFF

Result = TypeVar("Result")


class ClientDisconnected(Exception):
    """The client has closed the connection."""


async def cancel_on_disconnect(work: Coroutine[Any, Any, Result], receive: Receive, deadline: float) -> Result:
    """The result of `work`. `deadline` is by the monotonic clock. `receive` must have returned all of the body before.

    Raises ClientDisconnected, DeadlineExceeded, ShuttingDown and what `work` raises. `work` has ended in each case.
    Only for the task that the server runs a request in: the server alone cancels that, when the time to end is over.
    """
    working, disconnecting = asyncio.ensure_future(work), asyncio.ensure_future(_disconnect(receive))
    try:
        timeout_s = max(0.0, deadline - time.monotonic())
        await asyncio.wait({working, disconnecting}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            if disconnecting.done():
                raise ClientDisconnected
            raise DeadlineExceeded("The answer took longer than this server allows.")
    except asyncio.CancelledError:
        raise ShuttingDown(CUT_OFF) from None
    finally:
        for task in (working, disconnecting):
            task.cancel()
        await asyncio.wait({working, disconnecting})
    return working.result()


async def _disconnect(receive: Receive) -> None:
    """Return when the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
