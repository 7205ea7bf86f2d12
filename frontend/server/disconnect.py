"""Work for a client: for no longer than it listens, and no longer than the operator allows.

Refuses to know what the work is.
"""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

from frontend.errors import DeadlineExceeded

Result = TypeVar("Result")


class ClientDisconnected(Exception):
    """The client closed the connection: there is nobody to answer."""


async def cancel_on_disconnect(work: Coroutine[Any, Any, Result], receive: Receive, deadline: float) -> Result:
    """What `work` comes to. `deadline` is by the monotonic clock; of what `receive` brings, the body is read already.

    Raises ClientDisconnected, DeadlineExceeded and whatever `work` raises; `work` has been wound up in each case.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_disconnect(receive))
    try:
        timeout_s = max(0.0, deadline - time.monotonic())
        await asyncio.wait({working, leaving}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise (
                ClientDisconnected
                if leaving.done()
                else DeadlineExceeded("The answer took longer than this server allows.")
            )
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.wait({working, leaving})
    return working.result()


async def _disconnect(receive: Receive) -> None:
    """Return when the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
