"""HTTP to the model in Triton: a request in, events out. Closing a stream is what cancels its request."""

import http.client
import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from build_engine.errors import EngineError

MODEL = "tensorrt_llm"
_HOST = "127.0.0.1"
_TIMEOUT_S = 120.0
_ERROR_BYTES = 2000
_ACTIVE = re.compile(rb'^nv_trt_llm_request_metrics\{[^}]*request_type="active"[^}]*\} ([0-9.e+]+)$', re.MULTILINE)


class NoAnswer(EngineError):
    """The connection broke, or was not made."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer: `events` as they came, and what they add up to. `seconds` is from the first token to the last.

    `log_probs` are empty unless they were asked for.
    """

    token_ids: list[int]
    log_probs: list[float]
    seconds: float
    events: list[Mapping[str, Any]]

    @property
    def tokens_per_s(self) -> float:
        """The speed after the first token; 0 for fewer than two tokens."""
        return max(len(self.token_ids) - 1, 0) / max(self.seconds, 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """The ports of a Triton on this machine, and headers for it. Every method raises EngineError but `is_ready`."""

    http_port: int
    metrics_port: int
    headers: Mapping[str, str] = field(default_factory=dict)

    def is_ready(self) -> bool:
        """Whether the model is loaded. Raises OSError or HTTPException while nothing answers."""
        return self._get(self.http_port, f"/v2/models/{MODEL}/ready")[0] == 200

    def num_active(self) -> int | None:
        """How many requests have a slot of the engine; None if Triton's metrics do not have it."""
        try:
            _, metrics = self._get(self.metrics_port, "/metrics")
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"Triton's metrics cannot be read ({error})") from error
        found = _ACTIVE.search(metrics)
        return int(float(found[1])) if found else None

    def generate(self, tensors: Mapping[str, Any]) -> Answer:
        """The answer to a request, read to its end."""
        with self.stream(tensors) as events:
            return read_answer(events)

    @contextmanager
    def stream(self, tensors: Mapping[str, Any]) -> Iterator[Iterator[dict[str, Any]]]:
        """The events of a request as they arrive. The connection is closed at the end of the block."""
        connection = http.client.HTTPConnection(_HOST, self.http_port, timeout=_TIMEOUT_S)
        response: http.client.HTTPResponse | None = None
        try:
            body = json.dumps(tensors)
            headers = {"Content-Type": "application/json", **self.headers}
            connection.request("POST", f"/v2/models/{MODEL}/generate_stream", body, headers)
            response = connection.getresponse()
            if response.status != 200:
                error = response.read(_ERROR_BYTES).decode(errors="replace").strip()
                raise EngineError(f"the engine answered with status {response.status}: {error}")
            yield _events(response)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NoAnswer(f"the engine does not answer ({error})") from error
        finally:
            if response is not None:
                response.close()
            connection.close()

    def _get(self, port: int, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(_HOST, port, timeout=_TIMEOUT_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def _events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """Raises EngineError for an event that is an error: the engine can fail after its first token.

    Not by lines: http.client takes a connection that breaks in the middle for the end of the last line.
    """
    rest = b""
    while data := response.read1():
        *events, rest = (rest + data).split(b"\n\n")
        for text in events:
            event = json.loads(text.removeprefix(b"data:"))
            if "error" in event:
                raise EngineError(f"the engine answered: {event['error']}")
            yield event


def read_answer(events: Iterator[Mapping[str, Any]]) -> Answer:
    """Each event has the new token ids, and the log probabilities of all tokens so far."""
    token_ids: list[int] = []
    log_probs: list[float] = []
    seen: list[Mapping[str, Any]] = []
    first = last = time.monotonic()
    for event in events:
        last = time.monotonic()
        first = first if token_ids else last
        token_ids += as_list(event.get("output_ids", []))
        log_probs = as_list(event.get("output_log_probs", [])) or log_probs
        seen.append(event)
    return Answer(token_ids, log_probs, last - first, seen)


def as_list(value: Any) -> list[Any]:
    """A tensor of one element is a scalar in Triton's JSON."""
    return value if isinstance(value, list) else [value]
