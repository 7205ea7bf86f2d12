"""Whether the frontend leaks memory, sockets or reservations over thousands of requests, many of which fail.

Run from the repository's root: `python -m tests.benchmarks.soak [--requests 20000]`. The frontend runs in its own
process, in front of an engine that answers at once. The soak fails if memory grows by more than 10 percent after the
first 2,000 requests, if sockets stay open, if a reservation is still held at the end, or if the log has a traceback.
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
"""Requests before memory is measured for the first time."""
MAX_GROWTH = 1.10
"""Memory at the end, as a multiple of that after WARM_UP."""

WORDS, ENDLESS, BREAKS_OFF, REFUSES = 100, 1, 2, 3
STEPS: dict[int, list[Step]] = {
    ENDLESS: [Endless(6004)],
    BREAKS_OFF: [Events([[6004], [21209]], pause_s=0.01), Events(["boom"])],
    REFUSES: [Refusal(500, "boom")],
}
"""The engine's behaviour, selected by the seed of the request."""
ANSWER: list[Step] = [Events([[6004], [21209]] * 10)]

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "Was ist ein Haus?"}]
FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}


@dataclass(frozen=True)
class Kind:
    """Requests of one kind: path, fields, expected statuses, and whether the client disconnects in the middle."""

    path: str
    fields: dict[str, Any]
    statuses: tuple[int, ...] = (200,)
    disconnects: bool = False


def chat(*statuses: int, disconnects: bool = False, **fields: Any) -> Kind:
    """A chat request. Without another `seed` it is answered with words."""
    return Kind(CHAT, {"model": "m", "messages": MESSAGES, "seed": WORDS, **fields}, statuses or (200,), disconnects)


def completion(**fields: Any) -> Kind:
    """A completion."""
    return Kind("/v1/completions", {"model": "m", "prompt": "Ein Haus", "seed": WORDS, "max_tokens": 100, **fields})


def guided(number: int, **fields: Any) -> Kind:
    """A chat request with one of several schemas."""
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
    chat(stream=True, seed=ENDLESS, disconnects=True),
    chat(stream=True, seed=ENDLESS, n=2, disconnects=True),
    chat(seed=ENDLESS, stop="Haus" * 20, max_tokens=10, disconnects=True),
    chat(200, 500, stream=True, seed=BREAKS_OFF),  # depends on whether the failure arrives with the first token
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
    """The status of one request. A client that disconnects does so after the first bytes, or after 0.1 s."""
    if not kind.disconnects:
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
    """Send requests number `first` to `last` from concurrent clients. Returns the unexpected statuses."""
    unexpected: Counter[str] = Counter()
    numbers = iter(range(first, last))

    async def client() -> None:
        async with aiohttp.ClientSession() as session:
            for number in numbers:
                kind = KINDS[number % len(KINDS)]
                if (status := await ask(session, kind)) not in kind.statuses:
                    unexpected[f"{status} from {str(kind)[:200]}"] += 1

    await asyncio.gather(*[client() for _ in range(NUM_CLIENTS)])
    return unexpected


async def has_full_capacity() -> bool:
    """Whether all generations that one caller may have are accepted at once: only if no reservation is still held."""
    kind = chat(n=MAX_BATCH_SIZE + MAX_QUEUE_LENGTH * 3 // 4)
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
    logging.getLogger("aiohttp.server").disabled = True  # it logs an error for each client that disconnects
    web.run_app(fake.application(), host="127.0.0.1", port=ENGINE_PORT, print=None, access_log=None)


@dataclass(frozen=True)
class Reading:
    """The frontend's memory and that of its children, in MiB, and its number of connected sockets."""

    memory: float
    children: float
    sockets: int

    @classmethod
    def of(cls, process: psutil.Process) -> "Reading":
        """The present figures of a process."""
        connections = [found for found in process.net_connections("tcp") if found.status != psutil.CONN_LISTEN]
        children = sum(child.memory_info().rss for child in process.children(recursive=True))
        return cls(process.memory_info().rss / 2**20, children / 2**20, len(connections))

    def __str__(self) -> str:
        return f"{self.memory:.1f} MiB (and {self.children:.1f} of the grammar compiler), {self.sockets} sockets"


def settled(process: psutil.Process, sockets: int, timeout_s: float = 10.0) -> Reading:
    """A reading once at most `sockets` are open, or after `timeout_s`."""
    give_up = time.monotonic() + timeout_s
    while (reading := Reading.of(process)).sockets > sockets and time.monotonic() < give_up:
        time.sleep(0.1)
    return reading


def run(num_requests: int, process: psutil.Process) -> list[str]:
    """Send all requests. Returns the failures."""
    asyncio.run(soak(0, len(KINDS)))
    asyncio.run(has_full_capacity())
    idle = settled(process, 1)
    print(f"at the start: {idle}")
    unexpected = asyncio.run(soak(0, WARM_UP))
    warm = settled(process, idle.sockets)
    print(f"after {WARM_UP} requests: {warm}")
    begin = time.monotonic()
    unexpected += asyncio.run(soak(WARM_UP, num_requests))
    took_s = time.monotonic() - begin
    end = settled(process, idle.sockets)
    print(f"after {num_requests} requests: {end}; {(num_requests - WARM_UP) / took_s:.0f} requests/s")
    wrong = [f"{count} times {status}" for status, count in unexpected.items()]
    if end.memory > MAX_GROWTH * warm.memory:
        wrong.append(f"memory grew by {100 * (end.memory / warm.memory - 1):.0f} percent")
    if end.sockets > idle.sockets:
        wrong.append(f"{end.sockets - idle.sockets} sockets were left open")
    if not asyncio.run(has_full_capacity()):
        wrong.append("a reservation in the batch or the queue is still held")
    return wrong


def main() -> int:
    """The exit code: 0 if nothing leaked and no status was unexpected."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--requests", type=int, default=20000, help=f"number of requests, more than {WARM_UP} (default: 20000)"
    )
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
    print("\n".join(wrong) or "nothing leaked")
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
