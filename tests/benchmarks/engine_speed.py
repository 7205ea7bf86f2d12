"""CPU engines side by side, without Triton: tokens/s of 1, 8 and 32 streams, and the time that prompts take.

    python -m tests.benchmarks.engine_speed model_repository [ANOTHER_MODEL_REPOSITORY ...] [--rounds 3]

Each engine runs in a process of its own, with the code and the configuration of its repository, and they take turns.
All prompts differ, answers are greedy. Prints each round and the medians.
"""

import argparse
import multiprocessing
import random
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .direct_pipeline import open_direct_pipeline


@dataclass(frozen=True)
class Load:
    """Requests that arrive together, and their sizes in tokens."""

    num_streams: int
    prompt_tokens: int
    answer_tokens: int


LOADS = (Load(1, 30, 64), Load(8, 30, 32), Load(32, 30, 16), Load(1, 1500, 2))


@dataclass(frozen=True)
class Speed:
    """`prompts_s`: until each stream has its first token. `tokens_per_s`: of all streams, from then on."""

    prompts_s: float
    tokens_per_s: float


def engine(model_dir: Path, pipe: "Connection[Any, Any]") -> None:
    """Child process. Receives a Load and the number of a round, and sends the Speed."""
    pipeline, settings = open_direct_pipeline(model_dir)
    pipe.send("ready")
    while job := pipe.recv():
        load, number = job
        pipe.send(_measure(pipeline, load, number, settings.limits.vocab_size))


def _measure(pipeline: Any, load: Load, number: int, vocab_size: int) -> Speed:
    import numpy as np
    import openvino as ov
    import openvino_genai as genai

    config = genai.GenerationConfig()
    config.apply_chat_template, config.ignore_eos, config.max_new_tokens = False, True, load.answer_tokens
    rng = random.Random(f"{number} {load}")
    prompts = [rng.choices(range(100, vocab_size), k=load.prompt_tokens) for _ in range(load.num_streams)]
    begin = time.perf_counter()
    handles = [pipeline.add_request(at, ov.Tensor(np.array([ids], np.int64)), config) for at, ids in enumerate(prompts)]
    silent, all_begun = set(range(load.num_streams)), begin
    while pipeline.has_non_finished_requests():
        pipeline.step()
        for at, handle in enumerate(handles):
            while handle.can_read():
                handle.read()
                silent.discard(at)
        if not silent and all_begun == begin:
            all_begun = time.perf_counter()
    rest = load.num_streams * (load.answer_tokens - 1)
    return Speed(all_begun - begin, rest / (time.perf_counter() - all_begun))


def main() -> None:
    """Run the rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repositories", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with ExitStack() as stack:
        pipes = [_start(repository / "openvino", stack) for repository in args.repositories]
        _run(pipes, args.rounds)  # what is compiled or packed at first use
        rounds = [_run(pipes, number) for number in range(args.rounds)]
    for at, repository in enumerate(args.repositories):
        print(repository)
        for number, load in enumerate(LOADS):
            speeds = [results[at][number] for results in rounds]
            print(f"  {load.num_streams:2} x {load.prompt_tokens} tokens: {_words(speeds)}")


def _start(model_dir: Path, stack: ExitStack) -> "Connection[Any, Any]":
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=engine, args=(model_dir, theirs))
    process.start()
    stack.callback(process.join)
    stack.callback(ours.send, None)
    ours.recv()
    return ours


def _run(pipes: "Sequence[Connection[Any, Any]]", number: int) -> list[list[Speed]]:
    """The speeds of each engine, which measure each load one after the other."""
    results: list[list[Speed]] = [[] for _ in pipes]
    for load in LOADS:
        for pipe, speeds in zip(pipes, results, strict=True):
            pipe.send((load, number))
            speeds.append(pipe.recv())
    return results


def _words(speeds: Sequence[Speed]) -> str:
    rates, seconds = [speed.tokens_per_s for speed in speeds], [speed.prompts_s for speed in speeds]
    each = ", ".join(f"{rate:.1f}" for rate in rates)
    return (
        f"prompts {statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f}),"
        f" then {statistics.median(rates):.1f} tokens/s ({each})"
    )


if __name__ == "__main__":
    main()
