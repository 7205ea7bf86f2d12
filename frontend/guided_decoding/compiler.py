"""Compile constraints to grammars before the engine gets them, in worker processes with limits on time and memory.

The engine compiles a grammar inside a step, where one that does not compile fails every request of the batch. So each
is compiled here first, for the same vocabulary and with the release of xgrammar that TensorRT-LLM has. The engine then
gets the text that compiled here: always EBNF, never another type of guide.

Fair between callers: each compiles on all workers but one at most, and workers become free for callers in turn. So a
caller's slow constraints delay that caller alone.
"""

import asyncio
import os
from collections import Counter, OrderedDict, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from frontend.errors import CompilerBusy, InvalidRequest, QueueFull

from .spec import Constraint, Guide, param_of
from .vocabulary import Vocabulary
from .worker_messages import GuideLimits
from .worker_process import WorkerProcess

MAX_CACHED = 128
"""Constraints whose grammar is cached; the least recently used is dropped first."""
MAX_WAITING = 64
"""Constraints that are being compiled or wait for it; more are refused with CompilerBusy."""
MAX_WAITING_OF_CALLER = 16
"""Those of one caller; more are refused with QueueFull."""
MAX_WORKERS = 8
"""Worker processes; fewer where there are fewer cores, but at least two."""


@dataclass(slots=True)
class _Compilation:
    """A constraint that is being compiled or waits for it, and how many requests await it."""

    task: "asyncio.Task[Guide]"
    num_awaiting: int = 0


class GuideCompiler:
    """Compiles constraints side by side, equal ones only once. For one event loop.

    Worker processes start when a constraint finds no idle one. `num_frontends` share the cores of this machine.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        limits: GuideLimits | None = None,
        num_workers: int | None = None,
        num_frontends: int = 1,
    ) -> None:
        self._vocabulary = vocabulary
        self._limits = limits or GuideLimits()
        num_workers = num_workers or min(max(2, len(os.sched_getaffinity(0)) // num_frontends), MAX_WORKERS)
        self._idle: list[WorkerProcess] = []
        self._free_workers = asyncio.Semaphore(num_workers)
        self._turns = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(max(1, num_workers - 1)))
        self._num_of_caller = Counter[str]()
        self._running: dict[str, _Compilation] = {}
        self._tasks: set[asyncio.Task[Guide]] = set()  # those of _running, and those that are being cancelled
        self._finished: OrderedDict[str, Guide] = OrderedDict()

    async def compile(self, constraint: Constraint, caller: str = "") -> Guide:
        """The guide for `constraint`. Requests with equal constraints await the same compilation.

        A compilation ends when the last request that awaits it is cancelled. Raises InvalidRequest that names the field
        if the constraint is wrong or takes too long or too much memory, QueueFull and CompilerBusy.
        """
        key = self._key(constraint)
        if key in self._finished:
            self._finished.move_to_end(key)
            return self._finished[key]
        compilation = self._running.get(key) or self._begin(key, constraint, caller)
        compilation.num_awaiting += 1
        try:
            return await asyncio.shield(compilation.task)  # cancelling one request leaves it to the others
        finally:
            compilation.num_awaiting -= 1
            if not compilation.num_awaiting and not compilation.task.done():
                compilation.task.cancel()
                self._running.pop(key, None)  # a request that comes now begins anew

    async def close(self) -> None:
        """End the worker processes. Calls of `compile` that still wait raise CancelledError."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._idle:
            await self._idle.pop().end()

    def _key(self, constraint: Constraint) -> str:
        """The constraint as text. Its length is limited because the cache keeps it."""
        param = param_of(constraint)
        try:
            key = repr(constraint)
        except RecursionError as error:
            raise InvalidRequest(f"`{param}` is nested too deeply", param=param) from error
        if len(key.encode(errors="replace")) > self._limits.constraint_bytes:
            raise InvalidRequest(f"`{param}` has more than {self._limits.constraint_bytes} bytes", param=param)
        return key

    def _begin(self, key: str, constraint: Constraint, caller: str) -> _Compilation:
        if self._num_of_caller[caller] >= MAX_WAITING_OF_CALLER:
            raise QueueFull("Too many guides (response_format, tools, ...) of yours wait to be compiled.")
        if self._num_of_caller.total() >= MAX_WAITING:
            raise CompilerBusy("Too many guides (response_format, tools, ...) wait to be compiled.")
        self._num_of_caller[caller] += 1
        compilation = _Compilation(asyncio.create_task(self._compile(constraint, caller)))
        self._running[key] = compilation
        self._tasks.add(compilation.task)
        compilation.task.add_done_callback(lambda task: self._finish(key, caller, task))
        return compilation

    def _finish(self, key: str, caller: str, task: "asyncio.Task[Guide]") -> None:
        self._tasks.discard(task)
        self._num_of_caller[caller] -= 1
        if not self._num_of_caller[caller]:
            del self._num_of_caller[caller]
            self._turns.pop(caller, None)
        if key in self._running and self._running[key].task is task:
            del self._running[key]
        if not task.cancelled() and task.exception() is None:
            self._finished[key] = task.result()
            if len(self._finished) > MAX_CACHED:
                self._finished.popitem(last=False)

    async def _compile(self, constraint: Constraint, caller: str) -> Guide:
        # A caller waits for a worker with few constraints at a time, so workers come to all callers in turn.
        async with self._turns[caller], self._worker() as worker:
            return await worker.compile(constraint)

    @asynccontextmanager
    async def _worker(self) -> AsyncIterator[WorkerProcess]:
        async with self._free_workers:
            worker = self._idle.pop() if self._idle else WorkerProcess(self._vocabulary, self._limits)
            try:
                yield worker
            finally:
                self._idle.append(worker)
