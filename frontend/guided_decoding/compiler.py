"""Compile constraints to grammars before the engine gets them, in a worker process with limits on time and memory.

The engine compiles a grammar inside a step, where one that does not compile fails every request of the batch. So each
is compiled here first, for the same vocabulary and with the release of xgrammar that the engine has. The engine then
gets the text that compiled here: always EBNF, never another type of guide.
"""

import asyncio
import contextlib
import json
import pickle
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import OrderedDict

from frontend.errors import InvalidRequest, QueueFull

from .spec import Constraint, param_of
from .vocabulary import Vocabulary
from .worker_messages import LENGTH, GuideLimits

MAX_CACHED = 128
"""Constraints whose grammar is cached; the least recently used is dropped first."""
MAX_WAITING = 64
"""Constraints that are being compiled or wait for it; more are refused with QueueFull."""


class GuideCompiler:
    """Compiles constraints one at a time, equal ones only once. For one event loop.

    The worker process starts with the first constraint.
    """

    def __init__(self, vocabulary: Vocabulary, limits: GuideLimits | None = None) -> None:
        self._limits = limits or GuideLimits()
        self._first_request = pickle.dumps((vocabulary, self._limits))
        self._process: Process | None = None
        self._worker_lock = asyncio.Lock()
        self._running: dict[str, asyncio.Task[str]] = {}
        self._finished: OrderedDict[str, str] = OrderedDict()

    async def compile(self, constraint: Constraint) -> str:
        """The grammar for `constraint`, as EBNF. Callers with equal constraints await the same compilation.

        Raises InvalidRequest that names the field if the constraint is wrong or takes too long or too much memory, and
        QueueFull.
        """
        key = self._key(constraint)
        if key in self._finished:
            self._finished.move_to_end(key)
            return self._finished[key]
        if key not in self._running:
            if len(self._running) >= MAX_WAITING:
                raise QueueFull("Too many guides (response_format, tools, ...) wait to be compiled.")
            task = self._running[key] = asyncio.create_task(self._compile(constraint))
            task.add_done_callback(lambda done: self._finish(key, done))
        # Cancelling one caller does not cancel the compilation: others may await it, and the result is cached.
        return await asyncio.shield(self._running[key])

    async def close(self) -> None:
        """End the worker process. Calls of `compile` that still wait raise CancelledError."""
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        await self._end_process()

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

    def _finish(self, key: str, task: "asyncio.Task[str]") -> None:
        del self._running[key]
        if not task.cancelled() and task.exception() is None:
            self._finished[key] = task.result()
            if len(self._finished) > MAX_CACHED:
                self._finished.popitem(last=False)

    async def _compile(self, constraint: Constraint) -> str:
        async with self._worker_lock:
            answer = await self._ask(constraint)
        if "ebnf" in answer:
            return answer["ebnf"]
        raise InvalidRequest(answer["message"], param=answer["param"])

    async def _ask(self, constraint: Constraint) -> dict[str, str]:
        param = param_of(constraint)
        request = pickle.dumps(constraint)
        if self._process is None:
            self._process = await _start(self._first_request)
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(LENGTH.pack(len(request)) + request)
            head = await process.stdout.readexactly(LENGTH.size)
            body = await process.stdout.readexactly(*LENGTH.unpack(head))
            answer: dict[str, str] = json.loads(body)
            return answer
        except (asyncio.IncompleteReadError, ConnectionError):
            # The worker has ended. No kill() here: it polls, which would take the exit status away from asyncio.
            self._process = None
            code = await process.wait()
            if code == -signal.SIGALRM:
                reason = f"takes more than {self._limits.time_s} s to compile"
            else:
                reason = "takes more memory than there is, or cannot be compiled"
            raise InvalidRequest(f"`{param}` {reason}.", param=param) from None
        except asyncio.CancelledError:
            await self._end_process()  # else its answer would be read as the answer to the next constraint
            raise

    async def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _start(first_request: bytes) -> Process:
    """A worker process that has been sent the vocabulary and the limits."""
    command = [sys.executable, "-m", "frontend.guided_decoding.worker"]
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, start_new_session=True)
    assert process.stdin is not None
    process.stdin.write(LENGTH.pack(len(first_request)) + first_request)
    return process
