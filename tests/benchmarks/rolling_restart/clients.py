"""Clients that ask without a pause, all or half of them for streams, and how each request ended."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from enum import Enum

import httpx

MAX_TOKENS = 120
_TIMEOUT_S = 60.0


class End(Enum):
    """How a request ended for its client."""

    ANSWERED = "answered"
    """Completely: `[DONE]`, or a JSON body, with as many tokens as were asked for."""
    ERROR_EVENT = "error event"
    """The answer had begun, and ended with an event that has an error."""
    CUT = "cut"
    """The answer had begun, and its connection was closed before its end: HTTP itself says so."""
    FAILED = "failed"
    """Nothing of an answer came, but an error."""


@dataclass
class Counts:
    """What became of the requests that began in one period. `longest_s` is of those that were answered."""

    sent: int = 0
    ends: Counter[End] = field(default_factory=Counter)
    longest_s: float = 0.0
    failures: list[str] = field(default_factory=list)


class Load:
    """Clients of one server, while `running()` lasts. `counts` is of the present period."""

    def __init__(self, url: str, model: str, num_clients: int, *, only_streams: bool = False) -> None:
        self._url = f"{url}/v1/chat/completions"
        self._model = model
        self._num_clients = num_clients
        self._only_streams = only_streams
        self.counts = Counts()

    @contextmanager
    def period(self) -> Iterator[Counts]:
        """Requests that begin from now on are counted in the counts of this period, also if they end after it."""
        self.counts = counts = Counts()
        yield counts
        self.counts = Counts()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Every client sends its next request when its last has ended. At the end all are waited for."""
        stop = asyncio.Event()
        limits = httpx.Limits(max_connections=self._num_clients)
        async with httpx.AsyncClient(timeout=_TIMEOUT_S, limits=limits, trust_env=False) as http:
            clients = [asyncio.ensure_future(self._client(http, number, stop)) for number in range(self._num_clients)]
            try:
                yield
            finally:
                stop.set()
                await asyncio.gather(*clients)

    async def _client(self, http: httpx.AsyncClient, number: int, stop: asyncio.Event) -> None:
        while not stop.is_set():
            counts, begin = self.counts, time.monotonic()
            counts.sent += 1
            end, detail = await self._ask(http, stream=self._only_streams or number % 2 == 0)
            counts.ends[end] += 1
            if end is End.ANSWERED:
                counts.longest_s = max(counts.longest_s, time.monotonic() - begin)
            elif end is End.FAILED:
                counts.failures.append(detail)
                await asyncio.sleep(0.2)  # else a server that refuses at once would get nothing but requests

    async def _ask(self, http: httpx.AsyncClient, *, stream: bool) -> tuple[End, str]:
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": "What is a house?"}],
            "max_tokens": MAX_TOKENS,
            "ignore_eos": True,
            "stream": stream,
        }
        has_begun = False
        try:
            async with http.stream("POST", self._url, json=body) as response:
                if response.status_code != 200:
                    await response.aread()
                    return End.FAILED, f"{response.status_code} {response.text[:200]}"
                has_begun = True
                return await _end_of_stream(response) if stream else _end_of_json(await response.aread())
        except httpx.TransportError as exc:
            return (End.CUT if has_begun else End.FAILED), repr(exc)


async def _events(response: httpx.Response) -> AsyncIterator[bytes]:
    """The data of each event. Not by lines: httpx also ends one at U+2028 and others, which a text may hold."""
    received = b""
    async for piece in response.aiter_bytes():
        *events, received = (received + piece).split(b"\n\n")
        for event in events:
            if event.startswith(b"data: "):
                yield event.removeprefix(b"data: ")


async def _end_of_stream(response: httpx.Response) -> tuple[End, str]:
    """A body that breaks off raises a TransportError. One that ends in order, without `[DONE]`, is wrong too."""
    num_events, reason = 0, None
    async for data in _events(response):
        if data == b"[DONE]":
            is_whole = num_events > 1 and reason == "length"
            return _whole_or_not(is_whole, f"a stream of {num_events} events that ended with {reason}")
        event = json.loads(data)
        if "error" in event:
            return End.ERROR_EVENT, ""
        num_events += 1
        reason = event["choices"][0]["finish_reason"] or reason
    return End.FAILED, f"200 and a stream that ended in order without [DONE], after {num_events} events"


def _end_of_json(body: bytes) -> tuple[End, str]:
    answer = json.loads(body)
    num_tokens, reason = answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]
    return _whole_or_not(num_tokens == MAX_TOKENS, f"an answer of {num_tokens} tokens that ended with {reason}")


def _whole_or_not(is_whole: bool, answer: str) -> tuple[End, str]:
    return (End.ANSWERED, "") if is_whole else (End.FAILED, f"200 and {answer}")
