"""Tokens per second and CPU time of the frontend with 1, 2 and 4 workers.

    python -m tests.benchmarks.workers ENGINE_DIR [--rounds 5]

The engine is that of `frontend_cpu`: a stand-in that sends each stream a token at every step. Its steps are short, so
the frontend is what limits. Engine, frontend and client share the cores of this machine; `busy` is how many cores the
frontend had, and the last column is the CPU time of all its processes. Prints medians.
"""

import argparse
from pathlib import Path
from statistics import median

from .frontend_cpu import FRONTEND_PORT, Round, frontend, measure, mock_engine

NUM_STREAMS, NUM_TOKENS, STEP_S = 512, 157, 0.005


def rounds_with(engine_dir: Path, workers: int, num_rounds: int) -> list[Round]:
    """One round to warm up, and then so many."""
    options = ("--workers", str(workers), "--disable-log-requests", "--log-level", "error")
    with frontend(engine_dir, FRONTEND_PORT, *options) as process:
        return [measure(process, FRONTEND_PORT, NUM_STREAMS) for _ in range(1 + num_rounds)][1:]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.workers")
    parser.add_argument("engine_dir", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print("| `--workers` | tokens/s | busy cores | us of CPU per token |\n|---|---|---|---|")
    with mock_engine(NUM_STREAMS, NUM_TOKENS, STEP_S):
        for workers in (1, 2, 4):
            rounds = rounds_with(args.engine_dir, workers, args.rounds)
            speed = median(each.num_tokens / each.took_s for each in rounds)
            busy = median(each.cpu_s / each.took_s for each in rounds)
            cpu = median(each.us_per_token for each in rounds)
            print(f"| {workers} | {speed:.0f} | {busy:.2f} | {cpu:.0f} |", flush=True)


if __name__ == "__main__":
    main()
