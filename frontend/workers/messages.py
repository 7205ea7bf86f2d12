"""What workers and their coordinator send each other: pickled messages, each after its length.

Both ends are processes of this server with the same rights, joined by a pair of sockets that no other process has.
"""

import asyncio
import pickle
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from frontend.errors import FrontendError
from frontend.server.load import Load, Totals

_LENGTH = struct.Struct("<I")


# ---- From a worker. `number` is the worker's own number for what it asks for.


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message: the worker is ready to serve. Answered by `Accepted` when all are.

    Else the first one would get all connections until the others listen too.
    """

    number: int
    max_running: int
    max_gathered_tokens: int


@dataclass(frozen=True, slots=True)
class Reserve:
    """Asks for a slot for each of `slot_ids`, all or none.

    Answered by `Accepted` or `Refused` for `number`, and then by a `Granted` for each slot as it becomes free.
    """

    number: int
    slot_ids: Sequence[int]
    caller: str


@dataclass(frozen=True, slots=True)
class CountRequest:
    """Asks for a place among the requests of a caller. Answered by `Granted` or `Refused`."""

    number: int
    caller: str


@dataclass(frozen=True, slots=True)
class ReserveTokens:
    """Asks for a part of the budget of alternatives. Answered by `Granted`."""

    number: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Check:
    """Asks whether so many generations may be reserved. Answered by `Accepted` or `Refused`."""

    number: int
    caller: str
    count: int


@dataclass(frozen=True, slots=True)
class End:
    """What was granted, or is waited for, is given up."""

    number: int


@dataclass(frozen=True, slots=True)
class AskOverview:
    """Asks for the load, and for what all workers have counted if that is wanted. Answered by `Overall`."""

    number: int
    with_counts: bool


@dataclass(frozen=True, slots=True)
class Report:
    """What this worker has done; the answer to `AskReport` of that number. `counts` is empty if not asked for."""

    number: int
    totals: Totals
    counts: bytes


# ---- From the coordinator.


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to `Hello`, `Check` and `Reserve`."""

    number: int


@dataclass(frozen=True, slots=True)
class Granted:
    """What was asked for is held until `End`."""

    number: int


@dataclass(frozen=True, slots=True)
class Refused:
    """What was asked for is refused, with the error for the client."""

    number: int
    error: FrontendError


@dataclass(frozen=True, slots=True)
class Overall:
    """The answer to `AskOverview`, of all workers together."""

    number: int
    load: Load
    counts: bytes


@dataclass(frozen=True, slots=True)
class AskReport:
    """Asks a worker for a `Report`."""

    number: int
    with_counts: bool


def write(writer: asyncio.StreamWriter, message: object) -> None:
    """Send a message. One that the other end will not read, because it has ended, is lost."""
    data = pickle.dumps(message)
    if not writer.is_closing():
        writer.write(_LENGTH.pack(len(data)) + data)


async def read(reader: asyncio.StreamReader) -> Any:
    """The next message, or None if the other end has ended."""
    try:
        [length] = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        return pickle.loads(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
