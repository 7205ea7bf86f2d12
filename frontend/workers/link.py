"""One worker's connection to the coordinator."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, TypeAlias

from frontend.errors import ShuttingDown
from frontend.server.overview import OwnCounts

from . import messages as m

Expected: TypeAlias = tuple[int, "asyncio.Future[Any]"]

_GONE = "The server is ending. Please retry."


class Link:
    """Asks the coordinator, and reads its answers. `own` is what this worker counts, from `start` on."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._ids = count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._is_open = True
        self.own: OwnCounts

    async def run(self) -> None:
        """Read answers until the coordinator ends. Then all that still waits for one is refused."""
        while (message := await m.read(self._reader)) is not None:
            self._take(message)
        self._is_open = False
        self._writer.close()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ShuttingDown(_GONE))

    @contextmanager
    def expect(self) -> "Iterator[Expected]":
        """An number to ask with, and the answer to it, until the end of the block."""
        number, answer = next(self._ids), asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        if not self._is_open:
            answer.set_exception(ShuttingDown(_GONE))
        try:
            yield number, answer
        finally:
            del self._waiting[number]
            if answer.done() and not answer.cancelled():
                answer.exception()  # asyncio logs one that was never read

    async def ask(self, to_message: Callable[[int], object]) -> Any:
        """Ask with the message for an number, and return the answer. Raises what the coordinator answers with."""
        with self.expect() as (number, answer):
            self.send(to_message(number))
            return await answer

    def send(self, message: object) -> None:
        """Send a message; an answer comes to `expect`."""
        m.write(self._writer, message)

    def _take(self, message: object) -> None:
        match message:
            case m.Granted() | m.Accepted():
                self._answer(message.number, None)
            case m.Overall():
                self._answer(message.number, message)
            case m.Refused():
                answer = self._waiting.get(message.number)
                if answer is not None and not answer.done():
                    answer.set_exception(message.error)
            case m.AskReport():
                self.send(m.Report(message.number, self.own.totals(), self.own.text() if message.with_counts else b""))

    def _answer(self, number: int, value: object) -> None:
        waiting = self._waiting.get(number)
        if waiting is not None and not waiting.done():
            waiting.set_result(value)
