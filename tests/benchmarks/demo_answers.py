"""How well the demo model answers: 50 everyday questions by HTTP, with figures, and the answers to read and judge.

`python -m tests.benchmarks.demo_answers` beside a running `make run`. A request says nothing about sampling but its
seed (its number here), so that the checkpoint's defaults hold; `--body '{"temperature": 0.7}'` adds fields to each. A
conversation of several turns has the model's own answers between them, and its last answer counts.
"""

import argparse
import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

CONVERSATIONS = Path(__file__).with_suffix(".json")
"""A list of conversations, each a list of what the user says."""
MAX_TOKENS = 200
STREAMS = 50
"""Requests at a time."""
LOOP = 0.2
"""An answer loops if more than this share of its four-word sequences has occurred in it before."""


@dataclass(frozen=True)
class Answer:
    """The last answer of a conversation, what the user asked for it, and whether it was cut at MAX_TOKENS."""

    turns: Sequence[str]
    text: str
    is_cut: bool
    num_tokens: int

    @property
    def repeated(self) -> float:
        """The share of repeated four-word sequences."""
        return repeated_share(self.text)


def repeated_share(text: str, length: int = 4) -> float:
    """The share, 0 to 1, of a text's sequences of `length` words that have occurred in it before."""
    words = re.findall(r"\w+", text.lower())
    sequences = [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]
    return 1 - len(set(sequences)) / len(sequences) if sequences else 0.0


async def _converse(client: httpx.AsyncClient, turns: Sequence[str], seed: int, fields: Mapping[str, Any]) -> Answer:
    messages: list[dict[str, str]] = []
    for turn in turns:
        messages.append({"role": "user", "content": turn})
        body = {"messages": messages, "max_tokens": MAX_TOKENS, "seed": seed, **fields}
        reply = (await client.post("/v1/chat/completions", json=body)).raise_for_status().json()
        choice = reply["choices"][0]
        messages.append(choice["message"])
    is_cut = choice["finish_reason"] == "length"
    return Answer(turns, choice["message"]["content"], is_cut, reply["usage"]["completion_tokens"])


async def ask(url: str, fields: Mapping[str, Any], seed: int) -> list[Answer]:
    """The answers to all conversations, in their order; number i has the seed `seed` + i."""
    free = asyncio.Semaphore(STREAMS)

    async def one(turns: Sequence[str], number: int) -> Answer:
        async with free:
            return await _converse(client, turns, seed + number, fields)

    async with httpx.AsyncClient(base_url=url, timeout=None) as client:
        conversations = json.loads(CONVERSATIONS.read_text())
        return await asyncio.gather(*(one(turns, number) for number, turns in enumerate(conversations)))


def figures(answers: Sequence[Answer]) -> str:
    """One line."""
    count = len(answers)
    return (
        f"{count} answers: {sum(answer.repeated for answer in answers) / count:.1%} repeated 4-grams, "
        f"{sum(answer.repeated > LOOP for answer in answers)} loop, "
        f"{sum(answer.is_cut for answer in answers)} cut at {MAX_TOKENS} tokens, "
        f"{sum(answer.num_tokens for answer in answers) / count:.0f} tokens on average"
    )


def _to_read(number: int, answer: Answer) -> str:
    notes = f"{answer.num_tokens} tokens, {answer.repeated:.0%} repeated{', cut' if answer.is_cut else ''}"
    return f"## {number}. {' / '.join(answer.turns)}\n\n{answer.text.strip()}\n\n({notes})\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.demo_answers")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the running server (default: %(default)s)")
    parser.add_argument("--body", type=json.loads, default={}, help="JSON with more fields for each request")
    parser.add_argument("--seed", type=int, default=1, help="of the first conversation (default: %(default)s)")
    parser.add_argument("--write", type=Path, help="a file for the answers, instead of printing them")
    arguments = parser.parse_args()
    answers = asyncio.run(ask(arguments.url, arguments.body, arguments.seed))
    text = "\n".join(_to_read(number, answer) for number, answer in enumerate(answers, 1))
    if arguments.write:
        arguments.write.write_text(text)
    else:
        print(text)
    print(figures(answers))


if __name__ == "__main__":
    main()
