"""Work on large bodies in threads, so that the event loop goes on serving the others.

Each step of it is bounded by openai/body_size.py and openai/prompt_size.py, because a thread that is inside of one call
into C stops the event loop too, unless that call releases the GIL as encoding does.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from starlette.requests import Request

from .disconnect import cancel_on_disconnect

Result = TypeVar("Result")

_OFF_LOOP_BYTES = 16 * 1024
"""A body of this size or more goes to a thread: tokenizing it would block every stream for milliseconds."""

_MAX_THREADS = 2
"""More would need more memory at a time, and wait for the same GIL most of the time."""

_SWITCH_INTERVAL_S = 0.0005
"""How long a thread may keep the GIL while the event loop waits for it, which it does several times for one answer.

Python's own 5 ms made a probe wait 30 ms among many large bodies. Without such bodies no thread waits for the GIL.
"""


class OffLoop:
    """Two threads, and the works that wait for them in the order of arrival. Sets the process's switch interval."""

    def __init__(self) -> None:
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        self._threads = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="off-loop")

    async def run(self, work: Callable[[], Result], http: Request, num_bytes: int, timeout_s: float) -> Result:
        """Do the work for a body of `num_bytes`: here, or in a thread if that may take long.

        Work that waits for a thread is dropped when its client disconnects. `http` must have returned all of its body.
        Raises ClientDisconnected, DeadlineExceeded and what `work` raises.
        """
        if num_bytes < _OFF_LOOP_BYTES:
            return work()
        return await cancel_on_disconnect(self._in_thread(work), http.receive, time.monotonic() + timeout_s)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, copy_context().run, work)
