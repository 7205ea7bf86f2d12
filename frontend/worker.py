"""`python -m frontend.worker`: one of several workers. frontend/workers/processes.py starts it, with a `Start`.

It ends with the process that has started it.
"""

import asyncio
import signal
import socket
import sys

from frontend.workers.link import Link
from frontend.workers.linked import Linked
from frontend.workers.start import Start

from .event_loop import run
from .serve import serve


async def _serve(start: Start) -> None:
    link = Link(*await asyncio.open_connection(sock=socket.socket(fileno=start.link)))
    reading = asyncio.create_task(link.run())
    reading.add_done_callback(_end_with_coordinator)
    listeners = [socket.socket(fileno=listener) for listener in start.listeners]
    await serve(start.settings, Linked(link, start.settings), listeners)


def _end_with_coordinator(reading: "asyncio.Task[None]") -> None:
    """Running answers still have their time."""
    if not reading.cancelled():
        signal.raise_signal(signal.SIGINT)


def main() -> int:
    """The exit code: see `run`."""
    start = Start.read(sys.stdin.buffer)
    return run(start.settings, _serve(start))


if __name__ == "__main__":
    sys.exit(main())
