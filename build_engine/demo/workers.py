"""Upcycles layers in processes of their own, one for each core.

Most of it is numpy on arrays too small for several threads to share, so one process would leave the other cores idle.
"""

import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from queue import SimpleQueue

from build_engine.errors import CheckpointError

from .upcycle import LayerJob, MixtralLayer

MAX_WORKERS = 4
"""Each takes 250 MB of memory. The caller's own work for each job keeps no more of them busy."""


def upcycle_layers(jobs: Iterable[LayerJob]) -> Generator[MixtralLayer, None, None]:
    """The layers in the order of the jobs, of which a few are under way. Raises CheckpointError if a worker dies."""
    count = min(len(os.sched_getaffinity(0)), MAX_WORKERS)
    with ExitStack() as stack:
        pool = ThreadPoolExecutor(count)
        stack.callback(pool.shutdown, cancel_futures=True)
        idle: SimpleQueue[_Worker] = SimpleQueue()
        for _ in range(count):
            worker = _Worker()
            stack.callback(worker.end)  # before the pool's, whose threads wait for it
            idle.put(worker)
        pending: deque[Future[MixtralLayer]] = deque()
        for job in jobs:
            pending.append(pool.submit(_upcycle, idle, job))
            if len(pending) > count:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


class _Worker:
    """In a session of its own: Ctrl-C in a terminal reaches the caller, which ends it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "build_engine.demo.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
        )

    def upcycle(self, job: LayerJob) -> MixtralLayer:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            pickle.dump(job, self._process.stdin)
            self._process.stdin.flush()
            layer: MixtralLayer = pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            status = self._process.wait()
            raise CheckpointError(
                f"a process that quantises the demo ended with status {status} (-9: most often for want of memory)"
            ) from error
        return layer

    def end(self) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):  # of what it has not read
                pipe.close()
        self._process.wait()


def _upcycle(idle: "SimpleQueue[_Worker]", job: LayerJob) -> MixtralLayer:
    """One job at a time for each worker; there are as many threads as workers."""
    worker = idle.get()
    try:
        return worker.upcycle(job)
    finally:
        idle.put(worker)
