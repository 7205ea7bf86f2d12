"""One worker process, seen from the event loop: a constraint in, its grammar or the reason against it out."""

import asyncio
import contextlib
import json
import pickle
import signal
import sys
from asyncio.subprocess import PIPE, Process
from typing import Any

from frontend.errors import InvalidRequest

from .spec import Constraint, Guide, param_of
from .vocabulary import Vocabulary
from .worker_messages import LENGTH, GuideLimits


class WorkerProcess:
    """Compiles one constraint at a time. The process starts with the first one, and again after it has died."""

    def __init__(self, vocabulary: Vocabulary, limits: GuideLimits) -> None:
        self._first_request = pickle.dumps((vocabulary, limits))
        self._limits = limits
        self._process: Process | None = None

    async def compile(self, constraint: Constraint) -> Guide:
        """The compiled guide. Cancelling this ends the process. Raises InvalidRequest that names the field."""
        answer = await self._ask(constraint)
        if "ebnf" in answer:
            return Guide(ebnf=answer["ebnf"], unguided_tools=tuple(answer["unguided_tools"]))
        # The message may quote the constraint, which may be as private as the prompt.
        raise InvalidRequest(
            answer["message"], param=answer["param"], log_message=f"`{answer['param']}` is not accepted."
        )

    async def end(self) -> None:
        """Kill the process and wait for its end."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _ask(self, constraint: Constraint) -> dict[str, Any]:
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
            answer: dict[str, Any] = json.loads(body)
            return answer
        except (asyncio.IncompleteReadError, ConnectionError):
            # The worker has ended. No kill() here: it polls, which would take the exit status away from asyncio.
            self._process = None
            raise self._reason(await process.wait(), param_of(constraint)) from None
        except asyncio.CancelledError:
            await self.end()  # else its answer would be read as the answer to the next constraint
            raise

    def _reason(self, exit_code: int, param: str) -> InvalidRequest:
        if exit_code == -signal.SIGPROF:
            reason = f"takes more than {self._limits.cpu_s} s to compile"
        else:
            reason = "takes more memory than there is, or cannot be compiled"
        return InvalidRequest(f"`{param}` {reason}.", param=param)


async def _start(first_request: bytes) -> Process:
    """A worker process that has been sent the vocabulary and the limits."""
    command = [sys.executable, "-m", "frontend.guided_decoding.worker"]
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, start_new_session=True)
    assert process.stdin is not None
    process.stdin.write(LENGTH.pack(len(first_request)) + first_request)
    return process
