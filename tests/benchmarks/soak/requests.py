"""The mix of requests that a soak sends: streams, guides, tools, clients that leave, and what is refused."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.frontend.fake_triton import Endless, Events, Refusal, Step

MODEL = "m"
NUM_CLIENTS = 24

WORDS, ENDLESS, BREAKS_OFF, REFUSES = 100, 1, 2, 3
STEPS: dict[int, list[Step]] = {
    ENDLESS: [Endless(6004)],
    BREAKS_OFF: [Events([[6004], [21209]], pause_s=0.01), Events(["boom"])],
    REFUSES: [Refusal(500, "boom")],
}
"""The fake engine's behaviour, selected by the seed of the request. The real engine takes it for a seed."""
ANSWER: list[Step] = [Events([[6004], [21209]] * 10)]

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "Was ist ein Haus?"}]
FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}


def engine_steps(tensors: dict[str, Any]) -> list[Step]:
    """What the fake engine does with a request."""
    return STEPS.get(tensors["seed"], ANSWER)


@dataclass(frozen=True)
class Kind:
    """Requests of one kind: path, fields, expected statuses, and whether the client disconnects in the middle.

    `fake_only`: its statuses are those of the fake engine. `{number}` in a schema is the number of the request.
    """

    path: str
    fields: dict[str, Any]
    statuses: tuple[int, ...] = (200,)
    disconnects: bool = False
    fake_only: bool = False
    distinct_guide: bool = False

    def body(self, number: int) -> dict[str, Any]:
        """The body of request `number`."""
        return self.fields | (schema(f"b{number}") if self.distinct_guide else {})


def chat(*statuses: int, disconnects: bool = False, fake_only: bool = False, **fields: Any) -> Kind:
    """A chat request. Without another `seed` it is answered with words."""
    content = {"model": MODEL, "messages": MESSAGES, "seed": WORDS, "max_tokens": 20, **fields}
    return Kind(CHAT, content, statuses or (200,), disconnects, fake_only)


def completion(**fields: Any) -> Kind:
    """A completion."""
    content = {"model": MODEL, "prompt": "Ein Haus", "seed": WORDS, "max_tokens": 20, **fields}
    return Kind("/v1/completions", content)


def schema(name: str) -> dict[str, Any]:
    """The field of a guide: an object with one property."""
    content = {"type": "object", "properties": {name: {"type": "integer"}}}
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": content}}}


KINDS: Sequence[Kind] = (
    chat(),
    chat(stream=True),
    chat(stream=True, logprobs=True, stream_options={"include_usage": True}),
    chat(n=3, logprobs=True),
    chat(n=2, stream=True),
    chat(stop="Haus"),
    chat(logit_bias={"5": 1.0}, fake_only=True),
    chat(stream=True, seed=ENDLESS, max_tokens=500, disconnects=True),
    chat(stream=True, seed=ENDLESS, n=2, max_tokens=500, disconnects=True),
    chat(seed=ENDLESS, stop="Haus" * 20, max_tokens=10, disconnects=True),
    chat(200, 500, stream=True, seed=BREAKS_OFF),  # depends on whether the failure arrives with the first token
    chat(500, seed=BREAKS_OFF, fake_only=True),
    chat(500, seed=REFUSES, n=4, fake_only=True),
    chat(400, temperature=3),
    chat(400, max_tokens=10**6),
    chat(400, guided_regex="("),
    chat(404, model="gpt-4"),
    completion(),
    completion(prompt=["a", "b", "c"], stream=True, echo=True),
    chat(**schema("a1")),
    chat(stream=True, **schema("a2")),
    Kind(CHAT, {"model": MODEL, "messages": MESSAGES, "seed": WORDS, "max_tokens": 20}, distinct_guide=True),
    chat(stream=True, seed=ENDLESS, disconnects=True, **schema("a3")),
    chat(tools=[{"type": "function", "function": FUNCTION}]),
    chat(tools=[{"type": "function", "function": FUNCTION}], tool_choice="required", stream=True),
    Kind("/v1/responses", {"model": MODEL, "input": "Was ist ein Haus?", "max_output_tokens": 20}),
    Kind("/v1/responses", {"model": MODEL, "input": "Was ist ein Haus?", "max_output_tokens": 20, "stream": True}),
    Kind("/tokenize", {"prompt": "Ein Haus"}),
    Kind(CHAT, {"model": MODEL, "messages": MESSAGES, "padding": "x" * 300_000}, (413,)),
)


@dataclass(frozen=True)
class Clients:
    """Concurrent clients of the server at `url`, which is sent `kinds` in turn."""

    url: str
    kinds: Sequence[Kind]
    headers: dict[str, str]

    async def ask(self, session: aiohttp.ClientSession, kind: Kind, number: int) -> int:
        """The status of one request. A client that disconnects does so after the first bytes, or after 0.1 s."""
        if not kind.disconnects:
            async with session.post(self.url + kind.path, json=kind.body(number)) as response:
                await response.read()
                return response.status
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._begin(session, kind, number), 0.1)
        return kind.statuses[0]

    async def _begin(self, session: aiohttp.ClientSession, kind: Kind, number: int) -> None:
        async with session.post(self.url + kind.path, json=kind.body(number)) as response:
            await response.content.readany()
            response.close()

    async def send(self, first: int, last: int) -> Counter[str]:
        """Send requests number `first` to `last`. Returns the unexpected statuses."""
        unexpected: Counter[str] = Counter()
        numbers = iter(range(first, last))

        async def client() -> None:
            async with aiohttp.ClientSession(headers=self.headers, timeout=aiohttp.ClientTimeout(600)) as session:
                for number in numbers:
                    kind = self.kinds[number % len(self.kinds)]
                    if (status := await self.ask(session, kind, number)) not in kind.statuses:
                        unexpected[f"{status} from {str(kind)[:200]}"] += 1

        await asyncio.gather(*[client() for _ in range(NUM_CLIENTS)])
        return unexpected
