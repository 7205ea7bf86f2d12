"""What clients sent and were sent during the tests, to be looked for in the log: it shows neither, and no key."""

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

_TEXT_FIELDS = frozenset({"content", "text", "prompt", "input", "instructions", "system"})
"""Fields of bodies, requests' and answers', that hold texts."""
_KEY_HEADERS = ("authorization", "x-api-key")
_MIN_CHARS = 8
"""A shorter text may be a part of what a line says anyway."""
_COMPARED_CHARS = 40
"""A line that shows a text shows its beginning."""
_OURS = ("frontend", "build_engine", "uvicorn.error")
"""Not uvicorn.access: it is off (see `uvicorn_config`), but pytest adds its handler to every logger that is."""


class Exchanged:
    """The beginnings of texts, and the keys, that this process's clients exchanged with servers, in order."""

    def __init__(self) -> None:
        self._secrets: list[str] = []

    def __len__(self) -> int:
        return len(self._secrets)

    def add_request(self, request: httpx.Request) -> None:
        given = (request.headers.get(name, "").rpartition(" ")[2] for name in _KEY_HEADERS)
        self._secrets += [key for key in given if len(key) >= _MIN_CHARS]
        if isinstance(request.stream, httpx.ByteStream):
            self._add_body(request.content)

    def add_response(self, response: httpx.Response) -> None:
        if response.is_closed and not response.is_error:
            self._add_body(response.content)

    def shown_in(self, log: str, since: int) -> list[str]:
        """Those in `log`, of what was exchanged since `len(self)` was `since`."""
        return sorted({secret for secret in self._secrets[since:] if secret in log})

    def _add_body(self, body: bytes) -> None:
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            return
        self._secrets += [text[:_COMPARED_CHARS] for text in _texts(value) if len(text) >= _MIN_CHARS and " " in text]


def _texts(value: Any, is_text: bool = False) -> Iterator[str]:
    """Every string below a field of _TEXT_FIELDS. Nested bodies of hostile tests are followed a little way only."""
    pending = [(value, is_text, 0)]
    while pending:
        value, is_text, depth = pending.pop()
        if isinstance(value, str) and is_text:
            yield value
        elif depth < 8 and isinstance(value, dict):
            pending += [(item, is_text or name in _TEXT_FIELDS, depth + 1) for name, item in value.items()]
        elif depth < 8 and isinstance(value, list):
            pending += [(item, is_text, depth + 1) for item in value[:100]]


EXCHANGED = Exchanged()


@contextmanager
def recorded() -> Iterator[None]:
    """Inside, what clients of httpx exchange is added to EXCHANGED. openai, anthropic and LangChain use httpx."""
    send, send_async = httpx.Client.send, httpx.AsyncClient.send

    def record(client: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        EXCHANGED.add_request(request)
        response = send(client, request, **options)
        EXCHANGED.add_response(response)
        return response

    async def record_async(client: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
        EXCHANGED.add_request(request)
        response = await send_async(client, request, **options)
        EXCHANGED.add_response(response)
        return response

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx.Client, "send", record)
        patch.setattr(httpx.AsyncClient, "send", record_async)
        yield


def as_text(records: Iterable[logging.LogRecord]) -> str:
    """The lines of our own loggers, with the fields that JSON shows."""
    return "\n".join(
        f"{record.getMessage()} {' '.join(map(str, vars(record).values()))}"
        for record in records
        if record.name.startswith(_OURS)
    )
