"""A client of the API: the README's request, streams, and health."""

import json
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

MESSAGES = [
    {"role": "user", "content": "You are a helpful assistant."},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Was ist ein Haus?"},
]
"""Of the README's request."""


@dataclass(frozen=True)
class Api:
    """The API at `url`, serving `model`; `certificate` is the one that HTTPS has to show."""

    url: str
    model: str
    key: str | None = None
    certificate: Path | None = None

    def chat(self, **more: Any) -> httpx.Response:
        return self._request("POST", "/v1/chat/completions", json=self.body(**more))

    def status(self, path: str = "/health") -> int | None:
        """The status of a GET, or None if there is no connection."""
        try:
            return self._request("GET", path).status_code
        except httpx.TransportError:
            return None

    def body(self, **more: Any) -> dict[str, Any]:
        return {"model": self.model, "messages": MESSAGES, **more}

    def stream(self, num_tokens: int) -> "Stream":
        """Start an answer of exactly that many tokens, and return when its first one is there."""
        stream = Stream(self, num_tokens)
        stream.start()
        assert stream.has_token.wait(60), "no token within 60 s"
        return stream

    def tokens_per_s(self) -> float:
        started = time.monotonic()
        assert self.chat(max_tokens=200, min_tokens=200, ignore_eos=True).status_code == 200
        return 200 / (time.monotonic() - started)

    def _request(self, method: str, path: str, json: Any = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        trust = ssl.create_default_context(cafile=self.certificate)
        return httpx.request(method, f"{self.url}{path}", json=json, headers=headers, verify=trust, timeout=60)


class Stream(threading.Thread):
    """One answer that is streamed in the background."""

    def __init__(self, api: Api, num_tokens: int) -> None:
        super().__init__(daemon=True)
        self.has_token = threading.Event()
        self.events: list[dict[str, Any]] = []
        self.done = False
        self._api = api
        self._body = api.body(
            max_tokens=num_tokens,
            min_tokens=num_tokens,
            ignore_eos=True,
            stream=True,
            stream_options={"include_usage": True},
        )

    def run(self) -> None:
        url = f"{self._api.url}/v1/chat/completions"
        rest = b""
        with httpx.stream("POST", url, json=self._body, timeout=60) as response:
            for piece in response.iter_raw():
                # Not iter_lines: it also splits at U+2028, which an answer may contain.
                *lines, rest = (rest + piece).split(b"\n")
                self._read(lines)

    def _read(self, lines: list[bytes]) -> None:
        for line in lines:
            if line == b"data: [DONE]":
                self.done = True
            elif line.startswith(b"data: "):
                self.events.append(json.loads(line[6:]))
                self.has_token.set()

    def num_tokens(self) -> int:
        """As counted by the server, in the last event."""
        return int(self.events[-1]["usage"]["completion_tokens"])
