"""What hostile guides do to a neighbour, and to the engine's memory: python -m tests.benchmarks.guides --help.

Against a running `make run`, on the CPU engine: a stream of plain text runs while a guide is sent; printed are the
guide's status, the longest gap between two tokens of the stream, and the memory of the engine's process.
"""

import argparse
import json
import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

RANDOM = random.Random(15)
WORDS = ["".join(RANDOM.choices("abcdefghijklmnopqrstuvwxyz", k=8)) for _ in range(12_000)]
HOSTILE: dict[str, dict[str, Any]] = {
    "17,000 parentheses": {"guided_grammar": "root ::= " + "(" * 17_000 + '"a"' + ")" * 17_000},
    "500 parentheses": {"guided_grammar": "root ::= " + "(" * 500 + '"a"' + ")" * 500},
    '(("a"{1000}){1000}){1000}': {"guided_grammar": 'root ::= (("a"{1000}){1000}){1000}'},
    "((a{1,1000}){1,1000}){1,1000}": {"guided_regex": "((a{1,1000}){1,1000}){1,1000}"},
    "3,100 alternatives word[a-z]*": {"guided_regex": "|".join(f"{word}[a-z]*" for word in WORDS[:3_100])},
    "the same as a grammar": {"guided_grammar": "root ::= " + " | ".join(f'"{word}" [a-z]*' for word in WORDS[:3_100])},
    "choice of 5,000 x 25": {"guided_choice": [f"{word} {word} {word[:7]}" for word in WORDS[:5_000]]},
    "regex of 3,000 words": {"guided_regex": "(" + "|".join(WORDS[:3_000]) + ")*"},
    "enum of 12,000": {"guided_json": {"enum": WORDS}},
    "pattern of 200": {"guided_json": {"type": "string", "pattern": "^[a-zA-Z0-9 .]{1,200}$"}},
    "maxLength 1000": {"guided_json": {"type": "string", "maxLength": 1000}},
    ".{1,2000}": {"guided_regex": ".{1,2000}"},
}


@dataclass
class Neighbour:
    """A stream that runs beside the guides; `gap_s` is its longest time between two events since `reset`."""

    url: str
    model: str
    gap_s: float = 0.0
    num_events: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Stream answer after answer, until stopped."""
        body = {"model": self.model, "prompt": "Ein Haus ist", "max_tokens": 2000, "stream": True, "ignore_eos": True}
        while not self.stop.is_set():
            with httpx.stream("POST", f"{self.url}/v1/completions", json=body, timeout=300) as response:
                last = time.monotonic()
                for line in response.iter_lines():
                    if line and self.num_events:
                        self.gap_s = max(self.gap_s, time.monotonic() - last)
                    last = time.monotonic()
                    self.num_events += bool(line)
                    if self.stop.is_set():
                        return

    def reset(self) -> None:
        """Forget the longest gap."""
        self.gap_s = 0.0


def engine_mib(model_repository: str) -> int:
    """Resident memory of Triton's stub for that model repository, in MiB."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            if b"triton_python_backend_stub" in command and model_repository.encode() in command:
                total = max(total, int((process / "statm").read_text().split()[1]) * 4096)
        except OSError:
            continue
    return total >> 20


def ask(url: str, model: str, guide: dict[str, Any]) -> tuple[int, float, str]:
    """Status, seconds, and the error or text of one guided request."""
    began = time.monotonic()
    body = {"model": model, "prompt": "Ein Haus ist", "max_tokens": 8, **guide}
    response = httpx.post(f"{url}/v1/completions", json=body, timeout=300)
    answer = response.json()
    said = answer["error"]["message"] if "error" in answer else answer["choices"][0]["text"]
    return response.status_code, time.monotonic() - began, json.dumps(said)[:90]


def print_hostile(url: str, model: str, repository: str) -> None:
    """One line for each guide."""
    neighbour = Neighbour(url, model)
    thread = threading.Thread(target=neighbour.run)
    thread.start()
    while not neighbour.num_events:
        time.sleep(0.1)
    time.sleep(3)
    print(f"idle: longest gap {neighbour.gap_s:.3f} s, engine {engine_mib(repository)} MiB")
    for name, guide in HOSTILE.items():
        neighbour.reset()
        before = engine_mib(repository)
        status, seconds, said = ask(url, model, guide)
        memory = f"{before} to {engine_mib(repository)} MiB"
        print(f"{name:32} {status} in {seconds:5.1f} s, gap {neighbour.gap_s:.3f} s, {memory} {said}", flush=True)
    neighbour.stop.set()
    thread.join()


def print_distinct(url: str, model: str, repository: str, count: int) -> None:
    """The engine's memory after 50 distinct guides, and after `count`."""
    for number in range(count):
        guide = {"guided_regex": f"x{number}[a-z]{{1,40}}(b|c{number})*"}
        status, _, said = ask(url, model, guide)
        assert status == 200, said
        if number == 49 or number % 250 == 249:
            print(f"{number + 1} distinct guides: engine {engine_mib(repository)} MiB", flush=True)


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model-repository", default="model_repository", help="as Triton was started with it")
    parser.add_argument("--distinct", type=int, default=2000, help="number of distinct guides")
    arguments = parser.parse_args()
    model = httpx.get(f"{arguments.url}/v1/models").json()["data"][0]["id"]
    print_hostile(arguments.url, model, arguments.model_repository)
    print_distinct(arguments.url, model, arguments.model_repository, arguments.distinct)


if __name__ == "__main__":
    main()
