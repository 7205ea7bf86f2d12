"""Whether guides leave memory behind: that of every process after 50 distinct guides, and after 2,000.

    python -m tests.benchmarks.distinct_guides [--guides 2000]

A real Triton with the CPU engine of a tiny Mixtral. Four clients send JSON schemas that no request had before. Fails if
the engine's process has grown by more than MAX_GROWTH_MIB since guide FIRST, or if a status is not 200.
"""

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp

from .hostile import stack
from .hostile.attack import CHAT, MODEL, NEIGHBOUR_KEY
from .tiny_engine import KV_CACHE_BYTES, write_tiny_engine

FIRST = 50
MAX_GROWTH_MIB = 200.0
NUM_CLIENTS = 4


def body(number: int) -> dict[str, Any]:
    """A request with a schema as a tool has one, all its own."""
    properties = {
        f"name_{number}": {"type": "string", "maxLength": 40},
        "kind": {"enum": [f"kind {number + step}" for step in range(20)]},
        "sizes": {"type": "array", "items": {"type": "integer"}, "maxItems": 10},
    }
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    message = {"role": "user", "content": "Was ist ein Haus?"}
    return {"model": MODEL, "messages": [message], "max_tokens": 16, "guided_json": schema}


async def send(url: str, first: int, last: int) -> Counter[int]:
    """Send guides `first` to `last`, excluded. Returns how often each status came."""
    statuses: Counter[int] = Counter()
    numbers = iter(range(first, last))

    async def client(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            async with session.post(url + CHAT, json=body(number)) as response:
                await response.read()
                statuses[response.status] += 1

    headers = {"Authorization": f"Bearer {NEIGHBOUR_KEY}"}
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(600)) as session:
        await asyncio.gather(*[client(session) for _ in range(NUM_CLIENTS)])
    return statuses


def run(server: stack.Stack, num_guides: int) -> list[str]:
    """Send all guides. Returns the failures."""
    url, sent = f"http://127.0.0.1:{server.target.port}", 0
    print(f"at the start: {server.memory()}", flush=True)
    statuses, after_first = Counter[int](), 0.0
    for stop in (FIRST, *range(num_guides // 4, num_guides + 1, num_guides // 4)):
        statuses += asyncio.run(send(url, sent, stop))
        sent, memory = stop, server.memory()
        after_first = after_first or memory.engine
        print(f"after {sent} guides: {memory}", flush=True)
    wrong = [f"{count} times {status}" for status, count in statuses.items() if status != 200]
    if (growth := memory.engine - after_first) > MAX_GROWTH_MIB:
        wrong.append(f"the engine's process grew by {growth:.0f} MiB since guide {FIRST}")
    return wrong


def main() -> int:
    """The exit code: 0 if the memory stayed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.distinct_guides")
    parser.add_argument("--guides", type=int, default=2000, help="number of guides (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        engine = write_tiny_engine(Path(directory) / "tiny")
        with stack.running(engine, Path(directory), kv_cache_bytes=KV_CACHE_BYTES) as server:
            wrong = run(server, arguments.guides)
    print("\n".join(wrong) or "the memory stayed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
