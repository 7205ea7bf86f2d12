#!/usr/bin/env python3
"""Stands for Open MPI's mpirun: starts the programs between colons, each with its rank, until the first one ends.

On SIGTERM or SIGINT it passes SIGTERM on to all ranks, and kills them one second later. Source: Open MPI 4.1.4, tried.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time

KILL_AFTER_S = 1
"""How long ranks may take to end."""


def main() -> int:
    arguments = [argument for argument in sys.argv[1:] if argument != "--allow-run-as-root"]
    assert arguments[:2] == ["--bind-to", "none"]
    programs = ranks_of(arguments[2:])
    processes = []
    for rank, program in enumerate(programs):
        environment = {**os.environ, "OMPI_COMM_WORLD_RANK": str(rank), "OMPI_COMM_WORLD_SIZE": str(len(programs))}
        processes.append(subprocess.Popen(program, env=environment))

    def abort(*_: object) -> None:
        for process in processes:
            process.terminate()
        time.sleep(KILL_AFTER_S)
        for process in processes:
            process.kill()
        os._exit(1)

    signal.signal(signal.SIGTERM, abort)
    signal.signal(signal.SIGINT, abort)
    status = processes[0].wait()
    for process in processes[1:]:
        # A rank that has just been started does its work first: real ranks wait for each other at the end.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(KILL_AFTER_S)
        process.terminate()
    return status


def ranks_of(arguments: list[str]) -> list[list[str]]:
    """The program of each rank, of `-n COUNT PROGRAM... : -n COUNT PROGRAM...`."""
    groups: list[list[str]] = [[]]
    for argument in arguments:
        if argument == ":":
            groups.append([])
        else:
            groups[-1].append(argument)
    assert all(option == "-n" for option, *_ in groups)
    return [program for _, count, *program in groups for _ in range(int(count))]


if __name__ == "__main__":
    sys.exit(main())
