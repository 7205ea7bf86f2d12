"""What perf_analyzer needs and what it found: requests of token ids, and tokens per second out of its profile.

    python -m tests.benchmarks.perf_analyzer requests ENGINE_DIR > requests.json
    python -m tests.benchmarks.perf_analyzer summary profile.json

`make perf` runs both around perf_analyzer. Standard library only: a GPU host need not have this project's environment.
"""

import argparse
import json
import random
import statistics
from itertools import pairwise
from pathlib import Path
from typing import Any

REQUESTS = 256
PROMPT_TOKENS = 256
ANSWER_TOKENS = 64


def requests(vocab_size: int) -> dict[str, Any]:
    """Greedy answers of fixed length to random prompts, no two with a common prefix that a cache could serve."""
    rng = random.Random(0)
    return {"data": [_request([rng.randrange(3, vocab_size) for _ in range(PROMPT_TOKENS)]) for _ in range(REQUESTS)]}


def _request(token_ids: list[int]) -> dict[str, Any]:
    tensors: dict[str, list[Any]] = {
        "input_ids": token_ids,
        "input_lengths": [len(token_ids)],
        "request_output_len": [ANSWER_TOKENS],
        "end_id": [-1],  # no token ends the answer
        "pad_id": [0],
        "runtime_top_k": [1],
        "streaming": [True],
    }
    return {name: {"content": values, "shape": [len(values)]} for name, values in tensors.items()}


def summary(profile: dict[str, Any]) -> list[str]:
    """One line per concurrency. Each response is taken for one token, which streams of one token at a time are."""
    return [_line(experiment) for experiment in profile["experiments"]]


def _line(experiment: dict[str, Any]) -> str:
    concurrency, answers = experiment["experiment"]["value"], experiment["requests"]
    # Of an answer that a window cut off there may be nothing.
    answers = [answer for answer in answers if answer["response_timestamps"]]
    if not answers:
        raise SystemExit(f"perf_analyzer got no response at concurrency {concurrency}")
    tokens = sum(len(answer["response_timestamps"]) for answer in answers)
    begin = min(answer["timestamp"] for answer in answers)
    end = max(answer["response_timestamps"][-1] for answer in answers)
    first = [answer["response_timestamps"][0] - answer["timestamp"] for answer in answers]
    gaps = [later - earlier for answer in answers for earlier, later in pairwise(answer["response_timestamps"])]
    return (
        f"{concurrency:4} streams: {1e9 * tokens / (end - begin):8.1f} tokens/s, "
        f"first token after {statistics.median(first) / 1e6:.0f} ms, "
        f"then one every {statistics.median(gaps) / 1e6:.1f} ms (medians of {len(answers)} answers)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.perf_analyzer")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("requests").add_argument("engine_dir", type=Path)
    commands.add_parser("summary").add_argument("profile", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "requests":
        manifest = json.loads((arguments.engine_dir / "manifest.json").read_bytes())
        print(json.dumps(requests(manifest["model"]["vocab_size"])))
    else:
        print("\n".join(summary(json.loads(arguments.profile.read_bytes()))))


if __name__ == "__main__":
    main()
