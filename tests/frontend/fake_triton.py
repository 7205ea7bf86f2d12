"""A Triton that generates what a test's script says, and answers over HTTP as the generate extension does.

As in Triton, undeclared inputs are refused, a list of one element is sent as a scalar and an empty one as [], an error
after the first response is an event under status 200, and a disconnect is noticed at the next write.
"""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from aiohttp import web

REQUIRED = {"input_ids", "input_lengths", "request_output_len"}
OPTIONAL = {
    "end_id", "pad_id", "temperature", "runtime_top_k", "runtime_top_p", "runtime_min_p",
    "repetition_penalty", "presence_penalty",
    "frequency_penalty", "min_tokens", "seed", "return_log_probs", "streaming", "embedding_bias",
    "guided_decoding_guide_type", "guided_decoding_guide", "return_perf_metrics",
    "num_top_log_probs", "num_prompt_top_log_probs",
}  # fmt: skip


@dataclass
class Events:
    """Responses of the model, written at once or byte by byte: lists of token ids, or errors as strings."""

    responses: Sequence[list[int] | str]
    bytes_per_write: int = 1 << 20
    pause_s: float = 0.0


@dataclass
class Endless:
    """One token after the other until the client disconnects."""

    token_id: int
    pause_s: float = 0.002


@dataclass
class Silence:
    """Nothing is written until the event is set."""

    ends: threading.Event


@dataclass
class Refusal:
    """An error before the first response."""

    status: int
    message: str


@dataclass(frozen=True)
class Death:
    """The connection is closed."""


Step = Events | Endless | Silence | Refusal | Death
Script = Sequence[Step] | Callable[[dict[str, Any]], Sequence[Step]]


@dataclass
class FakeTriton:
    """`script` is the steps of every request from now on, or a function from a request's tensors to its steps.

    `metrics` is the text of its metrics port; None: status 500.
    """

    model: str = "openvino"
    max_batch_size: int = 4
    max_seq_len: int = 4096
    inputs: set[str] = field(default_factory=lambda: REQUIRED | OPTIONAL)
    tokens_per_block: int = 32
    script: Script = field(default_factory=lambda: [Events([[28705]])])
    num_reused_blocks: int = 0
    metrics: str | None = None
    ready: bool = True
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    num_running: int = 0
    most_running: int = 0
    num_cancelled: int = 0

    def reset(self) -> None:
        """As new, for the next test."""
        fresh = FakeTriton()
        names = (
            "script",
            "num_reused_blocks",
            "metrics",
            "ready",
            "requests",
            "headers",
            "most_running",
            "num_cancelled",
        )
        for name in names:
            setattr(self, name, getattr(fresh, name))

    def application(self) -> web.Application:
        """The routes that the frontend needs."""
        app = web.Application()
        app.router.add_get(f"/v2/models/{self.model}/ready", self._ready)
        app.router.add_get(f"/v2/models/{self.model}/config", self._config)
        app.router.add_post(f"/v2/models/{self.model}/generate_stream", self._generate_stream)
        app.router.add_get("/metrics", self._metrics)
        return app

    async def _ready(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if self.ready else 400)

    async def _config(self, request: web.Request) -> web.Response:
        return web.json_response(self.config())

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(status=500) if self.metrics is None else web.Response(text=self.metrics)

    def config(self) -> dict[str, Any]:
        """The model's config as Triton reports it."""
        return {
            "name": self.model,
            "max_batch_size": self.max_batch_size,
            "input": [{"name": name} for name in sorted(self.inputs)],
            "output": [{"name": name} for name in ("output_ids", "sequence_length", "kv_cache_reused_blocks")],
            "parameters": {
                "max_seq_len": {"string_value": str(self.max_seq_len)},
                "tokens_per_block": {"string_value": str(self.tokens_per_block)},
            },
        }

    async def _generate_stream(self, request: web.Request) -> web.StreamResponse:
        tensors = await request.json()
        undeclared = tensors.keys() - self.inputs
        if undeclared or not tensors.keys() >= REQUIRED:
            return web.json_response({"error": f"unexpected or missing inference input {undeclared}"}, status=400)
        self.requests.append(tensors)
        self.headers.append(dict(request.headers))
        self.num_running += 1
        self.most_running = max(self.most_running, self.num_running)
        try:
            steps = self.script(tensors) if callable(self.script) else self.script
            return await self._play(request, steps, tensors)
        except (ConnectionError, asyncio.CancelledError):
            self.num_cancelled += 1
            raise
        finally:
            self.num_running -= 1

    async def _play(self, request: web.Request, steps: Sequence[Step], asked: Mapping[str, Any]) -> web.StreamResponse:
        if isinstance(steps[0], Refusal):
            return web.json_response({"error": steps[0].message}, status=steps[0].status)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for step in steps:
            if isinstance(step, Events):
                await self._write(response.write, step, asked)
            elif isinstance(step, Endless):
                while True:
                    await response.write(self._event([step.token_id]))
                    await asyncio.sleep(step.pause_s)
            elif isinstance(step, Silence):
                await asyncio.to_thread(step.ends.wait)
            elif request.transport is not None:
                request.transport.abort()
        await response.write_eof()
        return response

    async def _write(self, write: Callable[[bytes], Awaitable[None]], step: Events, asked: Mapping[str, Any]) -> None:
        so_far: list[int] = []
        events = self._prompt_events(asked)
        for response in step.responses:
            so_far += [] if isinstance(response, str) else response
            outputs: dict[str, Any] = {}
            if asked.get("return_log_probs"):
                outputs["output_log_probs"] = _flat([log_prob_of(token_id) for token_id in so_far])
            if (num_top := asked.get("num_top_log_probs")) is not None and response and not isinstance(response, str):
                outputs |= scores_of(response, num_top)
            if asked.get("return_perf_metrics"):
                outputs["kv_cache_reused_blocks"] = self.num_reused_blocks
            events.append(self._event(response, outputs))
        data = b"".join(events)
        for at in range(0, len(data), step.bytes_per_write):
            await write(data[at : at + step.bytes_per_write])
            await asyncio.sleep(step.pause_s)

    def _prompt_events(self, asked: Mapping[str, Any]) -> list[bytes]:
        """Log probabilities of the prompt, two tokens at a time."""
        if (num_top := asked.get("num_prompt_top_log_probs")) is None:
            return []
        rest = asked["input_ids"][1:]
        pieces = [rest[at : at + 2] for at in range(0, len(rest), 2)]
        return [self._event([], scores_of(piece, num_top, "prompt_")) for piece in pieces]

    def _event(self, response: list[int] | str, outputs: Mapping[str, Any] = MappingProxyType({})) -> bytes:
        if isinstance(response, str):
            content: dict[str, Any] = {"error": response}
        else:
            content = {
                "model_name": self.model,
                "model_version": "1",
                "output_ids": _flat(response),
                "sequence_length": len(response),
                **outputs,
            }
        return b"data: " + json.dumps(content).encode() + b"\n\n"


def log_prob_of(token_id: int) -> float:
    """The log probability that this engine gives a token."""
    return -(token_id % 64) / 8


def alternatives_of(token_id: int, count: int) -> list[tuple[int, float]]:
    """(token id, log probability) of the most likely tokens where this engine has chosen a token, which is one of the
    first three of them.
    """
    rank = 1 + token_id % 3
    return [(token_id + place - rank, log_prob_of(token_id) - 1 - (place - rank) / 4) for place in range(1, count + 1)]


def scores_of(token_ids: Sequence[int], num_top: int, prefix: str = "") -> dict[str, Any]:
    """The outputs with which the CPU engine reports alternatives."""
    top = [pair for token_id in token_ids for pair in alternatives_of(token_id, num_top)]
    outputs: dict[str, list[Any]] = {
        "token_log_probs": [log_prob_of(token_id) - 1 for token_id in token_ids],
        "token_ranks": [1 + token_id % 3 for token_id in token_ids],
        "top_token_ids": [token_id for token_id, _ in top],
        "top_log_probs": [log_prob for _, log_prob in top],
    }
    return {prefix + name: _flat(values) for name, values in outputs.items()}


def _flat(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values
