"""What uvicorn uses of a connection, so that it reads no further while enough waits, and is closed without a reset."""

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.flow_control import FlowControl


class Flow(FlowControl):
    """uvicorn's, but reading can be held: then nothing resumes it but `release`."""

    _is_held = False

    def hold(self) -> None:
        """Read no more, whatever uvicorn does."""
        self._is_held = True
        self.pause_reading()

    def release(self) -> None:
        """Read again, if reading was held."""
        if self._is_held:
            self._is_held = False
            self.resume_reading()

    def resume_reading(self) -> None:
        """Called by uvicorn when an answer is complete, or when a route asks for more of a body."""
        if not self._is_held:
            super().resume_reading()


class WhileBodyArrives:
    """What an answer is written to while the body of its request arrives: closing it waits for the rest of the body."""

    def __init__(self, transport: asyncio.Transport, linger: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = linger
