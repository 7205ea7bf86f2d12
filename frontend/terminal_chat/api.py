"""The public API: names of models, and answers as streams."""

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_TIMEOUT = httpx.Timeout(10, read=None)
"""In seconds. A request may wait in the server's queue for as long as the server lets it."""


class ApiError(Exception):
    """The message is the API's own, with the status before it."""

    def __init__(self, status: int | None, message: str) -> None:
        super().__init__(f"{status}: {message}" if status else message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Delta:
    """One event of a stream. `num_tokens` counts those of the answer so far, None where the server does not say."""

    text: str
    finish_reason: str | None
    num_tokens: int | None


class Api:
    """One server. Raises ApiError for all that it refuses, and where it does not answer."""

    def __init__(self, url: str, key: str = "") -> None:
        parsed = httpx.URL(url)
        # A proxy of the environment is not for this machine.
        self._client = httpx.Client(base_url=parsed, timeout=_TIMEOUT, trust_env=parsed.host not in _LOOPBACK)
        self._url = url
        self.set_key(key)

    def set_key(self, key: str) -> None:
        """For the requests from here on."""
        self._client.headers = httpx.Headers({"Authorization": f"Bearer {key}"} if key else {})

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def models(self) -> list[str]:
        """The names that requests may give."""
        with self._errors():
            response = self._client.get("/v1/models")
        _check(response)
        return [str(model["id"]) for model in response.json()["data"]]

    def stream(self, body: Mapping[str, Any]) -> Generator[Delta, None, None]:
        """The answer to a request. Closing the iterator closes the connection, which cancels the generation."""
        options = {"include_usage": True, "continuous_usage_stats": True}
        wanted = {**body, "stream": True, "stream_options": options}
        with self._errors(), self._client.stream("POST", "/v1/chat/completions", json=wanted) as response:
            if response.is_error:
                response.read()
            _check(response)
            for line in response.iter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    yield _to_delta(json.loads(line.removeprefix("data: ")))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (httpx.TransportError, httpx.InvalidURL) as error:
            remedy = "start it with make run, or name another with --url"
            raise ApiError(None, f"{self._url} does not answer ({error}); {remedy}") from error


def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    again = f" (again in {wait} s)" if (wait := response.headers.get("retry-after")) else ""
    raise ApiError(response.status_code, f"{_message(response)}{again}")


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return response.text[:200] or response.reason_phrase


def _to_delta(event: Any) -> Delta:
    """Raises ApiError for an error that comes after the first bytes of a stream."""
    if "error" in event:
        raise ApiError(None, str(event["error"]["message"]))
    choice = event["choices"][0] if event["choices"] else {"delta": {}}
    usage = event.get("usage") or {}
    return Delta(
        text=choice["delta"].get("content") or "",
        finish_reason=choice.get("finish_reason"),
        num_tokens=usage.get("completion_tokens"),
    )
