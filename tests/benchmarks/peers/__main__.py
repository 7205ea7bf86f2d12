"""This product beside llama.cpp's server and vLLM's for CPUs: the same model, the same prompts, in turns.

    make bench-peers, or python -m tests.benchmarks.peers [--rounds 5] [--servers ours llama.cpp vllm]

The model is the demo's. llama.cpp computes with its 4-bit values and activations in int8, vLLM with dequantised weights
in bfloat16, ours with its 4-bit values in float32, or bfloat16 on a CPU with AMX. Each server keeps its defaults but
for 32 streams of 2,048 tokens. All run from the beginning to the end. Those that do not have their turn are idle, but
vLLM keeps a fifth of a core busy then, which slows the others: compare ours and llama.cpp without it. The client
shares the cores. Answers are greedy and of fixed length, and no prompt is sent twice.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import psutil

from tests.e2e.conftest import free_ports

from .load import Load, run_beside, run_load
from .rounds import Measured
from .servers import SERVERS, running
from .table import print_costs, print_gaps, print_loads

LOADS = (
    Load("1 stream", 1, 10, 64),
    Load("8 streams", 8, 10, 64),
    Load("32 streams", 32, 10, 32),
    Load("prompt of 1,500", 1, 1475, 16),
)
BESIDE = "stream beside a prompt of 1,500"
_IDLE_S = 5


def measure(servers: Sequence[Measured], num_rounds: int) -> None:
    """Round 0 warms up, and is forgotten."""
    for number in range(num_rounds + 1):
        # The first of one round is the last of the next.
        in_turn = [*servers[number % len(servers) :], *servers[: number % len(servers)]]
        for load in LOADS:
            for server in in_turn:
                server.turn(load.name, partial(run_load, load, number))
        for server in in_turn:
            server.turn(BESIDE, partial(run_beside, number))
        print(f"round {number} of {num_rounds} done", flush=True)
        if number == 0:
            for server in servers:
                server.rounds.clear()


def _idle(servers: Mapping[str, Measured]) -> None:
    """How many cores each server keeps busy while nothing asks it."""
    before = {name: server.running.cpu_s() for name, server in servers.items()}
    time.sleep(_IDLE_S)
    for name, server in servers.items():
        server.idle_cores = (server.running.cpu_s() - before[name]) / _IDLE_S


def main() -> None:
    """Measure and print three tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.peers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--servers", nargs="+", choices=SERVERS, default=list(SERVERS))
    args = parser.parse_args()
    ports = free_ports(len(args.servers))
    prepared = [SERVERS[name](port) for name, port in zip(args.servers, ports, strict=True)]
    with ExitStack() as stack:
        measured = {server.name: Measured(stack.enter_context(running(server))) for server in prepared}
        print(f"{psutil.cpu_count()} cores, load {psutil.getloadavg()[0]:.1f} before", flush=True)
        measure(list(measured.values()), args.rounds)
        _idle(measured)
        print_loads(measured, [load.name for load in LOADS])
        print_gaps(measured, BESIDE)
        print_costs(measured, LOADS[2].name)


if __name__ == "__main__":
    main()
