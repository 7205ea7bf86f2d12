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
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._is_open = True
        self.own: OwnCounts

    async def run(self) -> None:
        """Read answers until the coordinator ends. Then all that still waits for one is refused."""
        while (message := await m.read(self._reader)) is not None:
            self._take(message)
        self._is_open = False
        self._writer.close()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ShuttingDown(_GONE))

    @contextmanager
    def expect(self) -> "Iterator[Expected]":
        """A number to ask with, and the answer to it, until the end of the block."""
        number, answer = next(self._ids), asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        if not self._is_open:
            answer.set_exception(ShuttingDown(_GONE))
        try:
            yield number, answer
        finally:
            del self._answers[number]
            if answer.done() and not answer.cancelled():
                answer.exception()  # asyncio logs one that was never read

    async def ask(self, to_message: Callable[[int], object]) -> Any:
        """Ask with the message for a number, and return the answer. Raises what the coordinator answers with."""
        with self.expect() as (number, answer):
            self.send(to_message(number))
            return await answer

    def send(self, message: object) -> None:
        """Send a message; an answer comes to `expect`."""
        m.write(self._writer, message)

    def _take(self, message: object) -> None:
        match message:
            case m.Granted() | m.Accepted() | m.Overall():
                if (answer := self._expected(message.number)) is not None:
                    answer.set_result(message)
            case m.Refused():
                if (answer := self._expected(message.number)) is not None:
                    answer.set_exception(message.error)
            case m.AskReport():
                self.send(m.Report(message.number, self.own.totals(), self.own.text() if message.with_counts else b""))

    def _expected(self, number: int) -> "asyncio.Future[Any] | None":
        """The answer under this number, if it is still waited for."""
        answer = self._answers.get(number)
        return None if answer is None or answer.done() else answer
