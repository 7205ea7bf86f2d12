"""Whether the frontend gives everything back: thousands of requests of every kind, many of which go wrong.

Run from the repository's root: `python -m tests.benchmarks.soak [--requests 20000]`. The frontend is a process of its
own before an engine that answers at once. It fails if memory grows by more than 10 percent after the first 2,000, if
sockets stay open, if a generation still has a place in the end, or if there is a traceback in the log.
"""

import argparse
import asyncio
import contextlib
import logging
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from aiohttp import web

from tests.frontend.engine_files import write_manifest
from tests.frontend.fake_triton import Endless, Events, FakeTriton, Refusal, Step
from tests.mixtral_tokenizer import write_mixtral_tokenizer

ENGINE_PORT, FRONTEND_PORT = 19600, 19601
URL = f"http://127.0.0.1:{FRONTEND_PORT}"
MAX_BATCH_SIZE, MAX_QUEUE_LENGTH = 32, 64
NUM_CLIENTS = 24
WARM_UP = 2000
MOST_GROWTH = 1.10

# What the engine does is told by the seed.
WORDS, ENDLESS, BREAKS_OFF, REFUSES = 100, 1, 2, 3
STEPS: dict[int, list[Step]] = {
    ENDLESS: [Endless(6004)],
    BREAKS_OFF: [Events([[6004], [21209]], pause_s=0.01), Events(["boom"])],
    REFUSES: [Refusal(500, "boom")],
}
ANSWER: list[Step] = [Events([[6004], [21209]] * 10)]

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "Was ist ein Haus?"}]
FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}


@dataclass(frozen=True)
class Kind:
    """Requests of one kind: where to, what, which statuses are right, and whether the client leaves in the middle."""

    path: str
    fields: dict[str, Any]
    statuses: tuple[int, ...] = (200,)
    leaves: bool = False


def chat(*statuses: int, leaves: bool = False, **fields: Any) -> Kind:
    """A chat request; it is answered with words if it does not say otherwise."""
    return Kind(CHAT, {"model": "m", "messages": MESSAGES, "seed": WORDS, **fields}, statuses or (200,), leaves)


def completion(**fields: Any) -> Kind:
    """A completion."""
    return Kind("/v1/completions", {"model": "m", "prompt": "Ein Haus", "seed": WORDS, "max_tokens": 100, **fields})


def guided(number: int, **fields: Any) -> Kind:
    """An answer by one of several schemas."""
    schema = {"type": "object", "properties": {f"a{number}": {"type": "integer"}}}
    return chat(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}, **fields)


KINDS: Sequence[Kind] = (
    chat(),
    chat(stream=True),
    chat(stream=True, logprobs=True, stream_options={"include_usage": True}),
    chat(n=3, logprobs=True),
    chat(n=2, stream=True),
    chat(stop="Haus"),
    chat(logit_bias={"5": 1.0}),
    chat(stream=True, seed=ENDLESS, leaves=True),
    chat(stream=True, seed=ENDLESS, n=2, leaves=True),
    chat(seed=ENDLESS, stop="Haus" * 20, max_tokens=10, leaves=True),
    chat(200, 500, stream=True, seed=BREAKS_OFF),  # by whether the failure is read together with the first token
    chat(500, seed=BREAKS_OFF),
    chat(500, seed=REFUSES, n=4),
    chat(400, temperature=3),
    chat(400, max_tokens=10**6),
    chat(400, guided_regex="("),
    chat(404, model="gpt-4"),
    completion(),
    completion(prompt=["a", "b", "c"], stream=True, echo=True),
    guided(1),
    guided(2, stream=True),
    chat(tools=[{"type": "function", "function": FUNCTION}]),
    chat(tools=[{"type": "function", "function": FUNCTION}], tool_choice="required", stream=True),
    Kind("/v1/responses", {"model": "m", "input": "Was ist ein Haus?"}),
    Kind("/v1/responses", {"model": "m", "input": "Was ist ein Haus?", "stream": True}),
    Kind("/tokenize", {"prompt": "Ein Haus"}),
    Kind(CHAT, {"model": "m", "messages": MESSAGES, "padding": "x" * 300_000}, (413,)),
)


async def ask(session: aiohttp.ClientSession, kind: Kind) -> int:
    """The status of one request; a client that leaves does so after the first bytes, or soon if there are none."""
    if not kind.leaves:
        async with session.post(URL + kind.path, json=kind.fields) as response:
            await response.read()
            return response.status
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_begin(session, kind), 0.1)
    return kind.statuses[0]


async def _begin(session: aiohttp.ClientSession, kind: Kind) -> None:
    async with session.post(URL + kind.path, json=kind.fields) as response:
        await response.content.readany()
        response.close()


async def soak(first: int, last: int) -> Counter[str]:
    """Requests number `first` to `last`, from clients side by side. What was not as it should be."""
    surprises: Counter[str] = Counter()
    numbers = iter(range(first, last))

    async def client() -> None:
        async with aiohttp.ClientSession() as session:
            for number in numbers:
                kind = KINDS[number % len(KINDS)]
                if (status := await ask(session, kind)) not in kind.statuses:
                    surprises[f"{status} from {str(kind)[:200]}"] += 1

    await asyncio.gather(*[client() for _ in range(NUM_CLIENTS)])
    return surprises


async def takes_everything() -> bool:
    """Whether as many generations as there are places are taken at once: only if none of them is held by anybody."""
    kind = chat(n=MAX_BATCH_SIZE + MAX_QUEUE_LENGTH)
    async with aiohttp.ClientSession() as session:
        return await ask(session, kind) == 200


def engine() -> None:
    """Answers at once."""
    fake = FakeTriton(max_batch_size=MAX_BATCH_SIZE)

    def steps(tensors: dict[str, Any]) -> Sequence[Step]:
        fake.requests.clear()
        fake.headers.clear()
        return STEPS.get(tensors["seed"], ANSWER)

    fake.script = steps
    logging.getLogger("aiohttp.server").disabled = True  # it complains of every client that leaves
    web.run_app(fake.application(), host="127.0.0.1", port=ENGINE_PORT, print=None, access_log=None)


@dataclass(frozen=True)
class Reading:
    """What the frontend holds: MiB of memory, its own and that of its children; sockets with a peer."""

    memory: float
    children: float
    sockets: int

    @classmethod
    def of(cls, process: psutil.Process) -> "Reading":
        """Now."""
        connections = [found for found in process.net_connections("tcp") if found.status != psutil.CONN_LISTEN]
        children = sum(child.memory_info().rss for child in process.children(recursive=True))
        return cls(process.memory_info().rss / 2**20, children / 2**20, len(connections))

    def __str__(self) -> str:
        return f"{self.memory:.1f} MiB (and {self.children:.1f} of the guide compiler), {self.sockets} sockets"


def settled(process: psutil.Process, sockets: int, timeout_s: float = 10.0) -> Reading:
    """What it holds when all has been closed, or when it took too long."""
    give_up = time.monotonic() + timeout_s
    while (reading := Reading.of(process)).sockets > sockets and time.monotonic() < give_up:
        time.sleep(0.1)
    return reading


def run(num_requests: int, process: psutil.Process) -> list[str]:
    """All requests; what is wrong in the end."""
    asyncio.run(soak(0, len(KINDS)))
    asyncio.run(takes_everything())
    idle = settled(process, 1)
    print(f"at the start: {idle}")
    surprises = asyncio.run(soak(0, WARM_UP))
    warm = settled(process, idle.sockets)
    print(f"after {WARM_UP} requests: {warm}")
    begin = time.monotonic()
    surprises += asyncio.run(soak(WARM_UP, num_requests))
    took_s = time.monotonic() - begin
    end = settled(process, idle.sockets)
    print(f"after {num_requests} requests: {end}; {(num_requests - WARM_UP) / took_s:.0f} requests/s")
    wrong = [f"{count} times {surprise}" for surprise, count in surprises.items()]
    if end.memory > MOST_GROWTH * warm.memory:
        wrong.append(f"memory grew by {100 * (end.memory / warm.memory - 1):.0f} percent")
    if end.sockets > idle.sockets:
        wrong.append(f"{end.sockets - idle.sockets} sockets were left open")
    if not asyncio.run(takes_everything()):
        wrong.append("a generation still has a place in the engine or in the queue")
    return wrong


def main() -> int:
    """The exit code: 0 if everything came back."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20000, help=f"in all, more than {WARM_UP} (default: 20000)")
    num_requests = parser.parse_args().requests
    stand_in = multiprocessing.Process(target=engine)
    with tempfile.TemporaryDirectory() as directory:
        engine_dir, log = Path(directory), Path(directory) / "frontend.log"
        write_mixtral_tokenizer(engine_dir)
        write_manifest(engine_dir, "m")
        command = [sys.executable, "-m", "frontend", "--engine-dir", directory, "--port", str(FRONTEND_PORT)]
        command += ["--triton-url", f"http://127.0.0.1:{ENGINE_PORT}", "--max-queue-length", str(MAX_QUEUE_LENGTH)]
        command += ["--served-model-name", "m", "--max-body-bytes", "200000"]
        stand_in.start()
        with log.open("wb") as output:
            frontend = subprocess.Popen(command, stderr=output)
        try:
            asyncio.run(_until_healthy(frontend))
            wrong = run(num_requests, psutil.Process(frontend.pid))
        finally:
            frontend.terminate()
            frontend.wait()
            stand_in.terminate()
        if "Traceback" in (text := log.read_text()):
            wrong.append("a traceback in the log:\n" + text[text.index("Traceback") :][:3000])
    print("\n".join(wrong) or "everything came back")
    return 1 if wrong else 0


async def _until_healthy(frontend: "subprocess.Popen[bytes]") -> None:
    async with aiohttp.ClientSession() as session:
        while frontend.poll() is None:
            try:
                async with session.get(f"{URL}/health") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                await asyncio.sleep(0.2)
    raise SystemExit("the frontend did not start")


if __name__ == "__main__":
    sys.exit(main())
