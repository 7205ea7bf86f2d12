"""Streams of one server that begin together, and when their tokens arrived."""

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.benchmarks.serving import WORDS, streamed_request


@dataclass(frozen=True, slots=True)
class Load:
    """`prompt_words` is nearly the number of tokens: each of the words is one, and the template adds 20 or so."""

    name: str
    num_streams: int
    prompt_words: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Stream:
    """Seconds from when the request was sent until each event with text."""

    arrivals_s: Sequence[float]
    num_tokens: int

    @property
    def first_token_s(self) -> float:
        """Time to the first token."""
        return self.arrivals_s[0]

    @property
    def per_token_s(self) -> float:
        """Time per output token after the first."""
        return (self.arrivals_s[-1] - self.arrivals_s[0]) / max(self.num_tokens - 1, 1)

    @property
    def longest_gap_s(self) -> float:
        """The longest time between two tokens."""
        pairs = zip(self.arrivals_s, self.arrivals_s[1:], strict=False)
        return max((later - earlier for earlier, later in pairs), default=0.0)


def prompt(num_words: int, seed: object) -> str:
    """Prompts of different seeds differ from their first word on, so that no server finds them in its cache."""
    rng = random.Random(str(seed))
    return " ".join([f"{rng.randrange(10**6)}", *rng.choices(WORDS, k=num_words)])


async def run_load(load: Load, number: int, port: int, model: str) -> list[Stream]:
    """All streams of one round."""
    texts = [prompt(load.prompt_words, (load.name, number, stream)) for stream in range(load.num_streams)]
    return await asyncio.gather(*[stream(port, model, text, load.num_tokens) for text in texts])


async def run_beside(number: int, port: int, model: str) -> list[Stream]:
    """A stream of 160 tokens; a second after it began, a request with 1,450 words of prompt arrives."""
    first = asyncio.create_task(stream(port, model, prompt(30, ("beside", number)), 160))
    await asyncio.sleep(1.0)
    await stream(port, model, prompt(1450, ("long", number)), 2)
    return [await first]


async def stream(port: int, model: str, text: str, num_tokens: int) -> Stream:
    """One greedy answer. Raises SystemExit if it has another length than asked for, so no server answers less."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    begin = time.perf_counter()
    writer.write(streamed_request(model, text, num_tokens))
    arrivals, answered = [], 0
    while line := await reader.readline():
        arrived_s = time.perf_counter() - begin
        if line.startswith(b"data: {"):
            event = json.loads(line.removeprefix(b"data: "))
            if any(choice["delta"].get("content") for choice in event["choices"]):
                arrivals.append(arrived_s)
            answered = (event.get("usage") or {}).get("completion_tokens", answered)
    writer.close()
    if answered != num_tokens or not arrivals:
        raise SystemExit(f"asked port {port} for {num_tokens} tokens and got {answered}")
    return Stream(arrivals, answered)
