"""Guides compiled before they are sent, in a process that may be lost.

The engine compiles a guide inside a step, where one that does not compile fails every request of the batch. So each is
compiled here first, by the same release of xgrammar for the same vocabulary, in a process of its own with a limit on
time and memory. What was compiled is what is sent: EBNF, and no other kind of guide.
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
from .worker_messages import LENGTH, GuideLimits, Vocabulary

MAX_CACHED = 128
MAX_WAITING = 64


class GuideCompiler:
    """Compiles one guide at a time, each once; for one event loop. Nothing is started before the first."""

    def __init__(self, vocabulary: Vocabulary, limits: GuideLimits | None = None) -> None:
        self._limits = limits or GuideLimits()
        self._hello = pickle.dumps((vocabulary, self._limits))
        self._process: Process | None = None
        self._turn = asyncio.Lock()
        self._running: dict[str, asyncio.Task[str]] = {}
        self._finished: OrderedDict[str, str] = OrderedDict()

    async def compile(self, guide: Constraint) -> str:
        """The EBNF to send for `guide`. Whoever else wants the same waits for the same.

        Raises InvalidRequest that names the field, for a guide that is wrong or takes too long, and QueueFull.
        """
        key = self._key(guide)
        if key in self._finished:
            self._finished.move_to_end(key)
            return self._finished[key]
        if key not in self._running:
            if len(self._running) >= MAX_WAITING:
                raise QueueFull("Too many guides (response_format, tools, ...) wait to be compiled.")
            task = self._running[key] = asyncio.create_task(self._compile(guide))
            task.add_done_callback(lambda done: self._finish(key, done))
        # Others may wait for it, and the cache profits when nobody does any more.
        return await asyncio.shield(self._running[key])

    async def close(self) -> None:
        """End the process; who still waits is told that there is no answer."""
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        await self._end_process()

    def _key(self, guide: Constraint) -> str:
        """The guide spelled out, which is bounded here: it is held for as long as the guide is cached."""
        param = param_of(guide)
        try:
            key = repr(guide)
        except RecursionError as error:
            raise InvalidRequest(f"`{param}` is nested too deeply", param=param) from error
        if len(key.encode(errors="replace")) > self._limits.guide_bytes:
            raise InvalidRequest(f"`{param}` has more than {self._limits.guide_bytes} bytes", param=param)
        return key

    def _finish(self, key: str, task: "asyncio.Task[str]") -> None:
        del self._running[key]
        if not task.cancelled() and task.exception() is None:
            self._finished[key] = task.result()
            if len(self._finished) > MAX_CACHED:
                self._finished.popitem(last=False)

    async def _compile(self, guide: Constraint) -> str:
        async with self._turn:
            answer = await self._ask(guide)
        if "ebnf" in answer:
            return answer["ebnf"]
        raise InvalidRequest(answer["message"], param=answer["param"])

    async def _ask(self, guide: Constraint) -> dict[str, str]:
        param = param_of(guide)
        request = pickle.dumps(guide)
        if self._process is None:
            self._process = await _start(self._hello)
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
            # Not killed: that would look whether it has ended, and take its exit status from whoever waits for it.
            self._process = None
            code = await process.wait()
            if code == -signal.SIGALRM:
                reason = f"takes more than {self._limits.time_s} s to compile"
            else:
                reason = "takes more memory than there is, or cannot be compiled"
            raise InvalidRequest(f"`{param}` {reason}.", param=param) from None
        except asyncio.CancelledError:
            await self._end_process()  # its answer would be taken for the next guide's
            raise

    async def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _start(hello: bytes) -> Process:
    """A worker that has been told what it needs."""
    command = [sys.executable, "-m", "frontend.guided_decoding.worker"]
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, start_new_session=True)
    assert process.stdin is not None
    process.stdin.write(LENGTH.pack(len(hello)) + hello)
    return process
