"""perf_analyzer on Triton's model: token ids in, streams out, one line for each number of streams.

    python3 -m tests.benchmarks.perf_analyzer ENGINE_DIR --model openvino --url 127.0.0.1:8001 -- perf_analyzer

What follows `--` is the program, to which options are added: perf_analyzer itself, or what runs it in a container
(`make perf`). Triton must have gRPC open. Standard library only: a GPU host need not have this project's environment.

With `--gpu`, each line has the speed that the plan expects of the engine under this load, and the upper limit.

A window of measurement ends after a number of answers, not after a time, so that it fits an engine of any speed.
"""

import argparse
import json
import random
import statistics
import subprocess
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from build_engine.tensorrt_llm.gpus import GPUS
from build_engine.tensorrt_llm.speed import Speed
from tests.benchmarks.expected_speed import Load, expected_speed, gpu_problem

PROMPT_TOKENS = 256
ANSWER_TOKENS = 64
ANSWERS_PER_WINDOW = 2
"""Of each stream. perf_analyzer measures at least three windows, of at least a second each."""
PROMPTS_PER_STREAM = 32
"""More than an engine uses up that takes a second for two answers."""


def levels(text: str) -> list[int]:
    """perf_analyzer's `--concurrency-range`: FIRST[:LAST[:STEP]]. Raises ValueError."""
    first, *given = map(int, text.split(":"))
    last, step = [*given, *(first, 1)[len(given) :]]
    found = list(range(first, last + 1, step))
    if first < 1 or not found:
        raise ValueError(text)
    return found


def requests(vocab_size: int, count: int) -> dict[str, Any]:
    """Requests for greedy answers of fixed length. Every prompt is new: the KV cache of an old one would be reused."""
    prompts = ([random.randrange(3, vocab_size) for _ in range(PROMPT_TOKENS)] for _ in range(count))
    return {"data": [_request(prompt) for prompt in prompts]}


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


def options(model: str, url: str, streams: int, directory: Path) -> list[str]:
    """The options of perf_analyzer, as 2.41 and 2.60 both accept them. Windows may differ in throughput and latency."""
    return [
        *("-m", model, "-u", url, "-i", "grpc", "--streaming", "--async"),
        *("--concurrency-range", str(streams), "--input-data", str(directory / "requests.json")),
        *("--measurement-mode", "count_windows", "--measurement-request-count", str(ANSWERS_PER_WINDOW * streams)),
        *("--stability-percentage", "999", "--max-trials", "3"),
        *("--profile-export-file", str(directory / "profile.json")),
    ]  # fmt: skip


def summary(profile: dict[str, Any], expected: Speed | None = None) -> str:
    """One line. Counts each response as one token, which is right for a stream of single tokens."""
    (experiment,) = profile["experiments"]
    streams = experiment["experiment"]["value"]
    # An answer that the window cut off may have no response.
    answers = [answer for answer in experiment["requests"] if answer["response_timestamps"]]
    if not answers:
        raise SystemExit(f"perf_analyzer got no response with {streams} streams")
    tokens = sum(len(answer["response_timestamps"]) for answer in answers)
    begin = min(answer["timestamp"] for answer in answers)
    end = max(answer["response_timestamps"][-1] for answer in answers)
    first = [answer["response_timestamps"][0] - answer["timestamp"] for answer in answers]
    gaps = [later - earlier for answer in answers for earlier, later in pairwise(answer["response_timestamps"])]
    beside = f" (expected {expected.expected:,.0f}, at most {expected.at_most:,.0f})" if expected else ""
    return (
        f"{streams:4} streams: {1e9 * tokens / (end - begin):8.1f} tokens/s{beside}, "
        f"first token after {statistics.median(first) / 1e6:.0f} ms, "
        f"then one every {statistics.median(gaps) / 1e6:.1f} ms (medians of {len(answers)} answers)"
    )


def measure(
    program: Sequence[str], model: str, url: str, streams: int, vocab_size: int, directory: Path
) -> dict[str, Any]:
    """The profile of one run of perf_analyzer. Raises SystemExit with the end of its output if it fails."""
    (directory / "requests.json").write_text(json.dumps(requests(vocab_size, PROMPTS_PER_STREAM * streams)))
    profile = directory / "profile.json"
    profile.unlink(missing_ok=True)
    command = [*program, *options(model, url, streams, directory)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    (directory / f"{streams}.log").write_text(done.stdout)
    if done.returncode or not profile.exists():
        tail = "\n".join(done.stdout.splitlines()[-10:])
        raise SystemExit(f"{tail}\nperf_analyzer ended with status {done.returncode} and {streams} streams")
    found: dict[str, Any] = json.loads(profile.read_bytes())
    return found


def measure_levels(
    program: Sequence[str],
    engine_dir: Path,
    model: str,
    url: str,
    concurrency: Sequence[int],
    directory: Path,
    gpu: str | None = None,
) -> None:
    """Print a line for each number of streams. `gpu` is that of an engine for it, for the expected speed."""
    vocab_size = json.loads((engine_dir / "manifest.json").read_bytes())["model"]["vocab_size"]
    directory.mkdir(parents=True, exist_ok=True)
    for streams in concurrency:
        load = Load(streams=streams, prompt_tokens=PROMPT_TOKENS, answer_tokens=ANSWER_TOKENS)
        profile = measure(program, model, url, streams, vocab_size, directory)
        print(summary(profile, expected_speed(engine_dir, gpu, load) if gpu else None), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 -m tests.benchmarks.perf_analyzer")
    parser.add_argument("engine_dir", type=Path, metavar="ENGINE_DIR")
    parser.add_argument("--model", required=True, help="the model's name in Triton")
    parser.add_argument(
        "--url", required=True, metavar="HOST:PORT", help="Triton's gRPC address, as the program reaches it"
    )
    streams, shared = (
        "numbers of streams (default: %(default)s)",
        "for requests and results; the program must see it too (default: %(default)s)",
    )
    parser.add_argument("--concurrency", type=levels, default="1:33:8", metavar="FIRST[:LAST[:STEP]]", help=streams)
    parser.add_argument("--directory", type=Path, default=Path(".cache/perf"), metavar="DIR", help=shared)
    parser.add_argument("--gpu", choices=tuple(GPUS), help="that of this host, for the expected speed of a GPU engine")
    parser.add_argument("program", nargs="+", metavar="-- PROGRAM", help="perf_analyzer, or a command that runs it")
    given = parser.parse_args()
    gpu = given.gpu
    if gpu and (problem := gpu_problem(given.engine_dir, gpu)):
        print(problem, flush=True)
        gpu = None
    measure_levels(given.program, given.engine_dir, given.model, given.url, given.concurrency, given.directory, gpu)


if __name__ == "__main__":
    main()
