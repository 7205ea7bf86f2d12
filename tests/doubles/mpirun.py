#!/usr/bin/env python3
"""Stands for mpirun: starts the programs between colons, each with its rank, and ends when the first one does."""

import os
import subprocess
import sys


def main() -> int:
    general, arguments = sys.argv[1:4], sys.argv[4:]
    assert general == ["--allow-run-as-root", "--bind-to", "none"]
    programs: list[list[str]] = [[]]
    for argument in arguments:
        if argument == ":":
            programs.append([])
        else:
            programs[-1].append(argument)
    processes = []
    for rank, (option, count, *program) in enumerate(programs):
        assert (option, count) == ("-n", "1")
        environment = {**os.environ, "OMPI_COMM_WORLD_RANK": str(rank), "OMPI_COMM_WORLD_SIZE": str(len(programs))}
        processes.append(subprocess.Popen(program, env=environment))
    status = processes[0].wait()
    for process in processes[1:]:
        process.terminate()
    return status


if __name__ == "__main__":
    sys.exit(main())
