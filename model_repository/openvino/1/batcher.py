"""The in-flight batch: one thread that adds requests, steps the engine, and sends the tokens of each step.

GenAI's `step` and `read` hold the GIL, and `read` on an empty handle never returns; hence one thread, `can_read` before
every `read`, and a process (Triton's stub) that does nothing else.
"""

import faulthandler
import os
import queue
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

import openvino_genai as genai
from generation import GenerationRequest, prompt_tensor
from kv_room import KvRoom
from openvino_genai.py_openvino_genai import GenerationHandle

_SERVER_GONE_S = 10.0
"""Longest time for talking to Triton, which otherwise takes microseconds."""

SIGN_OF_LIFE_NS = 1_000_000_000
"""A request without a token gets an empty response this often, at most once in a step."""

_SHUTTING_DOWN = "the server is shutting down"


@contextmanager
def _talking_to_triton() -> Iterator[None]:
    """End this process if a call to Triton does not return: Triton was killed while it held a lock in shared memory.

    Such a call waits for ever and holds the GIL, so the main thread cannot notice that the server is gone. The signal
    of a timer ends the process nevertheless, and costs microseconds.
    """
    signal.setitimer(signal.ITIMER_REAL, _SERVER_GONE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@dataclass(slots=True)
class Progress:
    """What was generated for a request so far. Times in ns of the monotonic clock, 0 until they happen."""

    token_ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    num_sent: int = 0
    first_scheduled_time_ns: int = 0
    first_token_time_ns: int = 0
    last_token_time_ns: int = 0


class Client(Protocol):
    """The receiver of a request's tokens."""

    def is_cancelled(self) -> bool:
        """Whether the request was cancelled."""

    def send(self, request: GenerationRequest, progress: Progress, final: bool) -> None:
        """Send what is new in `progress`."""

    def fail(self, message: str, progress: Progress) -> None:
        """End the request with an error."""

    def cancel(self, progress: Progress) -> None:
        """End the request, which is cancelled."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """A request that is not in the batch yet."""

    request: GenerationRequest
    client: Client


@dataclass(slots=True, eq=False)
class _Active:
    request: GenerationRequest
    client: Client
    handle: GenerationHandle
    progress: Progress = field(default_factory=Progress)


class Batcher:
    """Owns the pipeline. Requests start in order of arrival, each when the KV cache has room for it.

    `submit` may be called from any thread; `on_step` is called after every step, with the number of requests.
    """

    def __init__(
        self, pipeline: genai.ContinuousBatchingPipeline, room: KvRoom, on_step: Callable[[int], None]
    ) -> None:
        self._pipeline = pipeline
        self._room = room
        self._on_step = on_step
        self._arrivals: queue.SimpleQueue[_Waiting | Callable[[], None] | None] = queue.SimpleQueue()
        self._waiting: deque[_Waiting] = deque()
        self._active: list[_Active] = []
        self._request_ids = count()
        self._signs_sent_ns = time.monotonic_ns()
        faulthandler.register(signal.SIGALRM, chain=True)  # print the stack, then end as by default
        self._thread = threading.Thread(target=self._run_or_die, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, request: GenerationRequest, client: Client) -> None:
        """Add a request to the batch before the next step, or as soon as there is room."""
        self._arrivals.put(_Waiting(request, client))

    def call(self, work: Callable[[], None]) -> None:
        """Run this in the batcher's thread, which is the one that talks to Triton, before the next step."""
        self._arrivals.put(work)

    def close(self) -> None:
        """Stop after the current step; requests that are not complete are failed."""
        self._arrivals.put(None)
        self._thread.join()

    def _run_or_die(self) -> None:
        """End the process if the thread fails. Triton then fails all requests, which would wait for ever otherwise."""
        try:
            self._run()
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    def _run(self) -> None:
        while self._receive():
            self._start_waiting()
            with _talking_to_triton():
                self._send_signs_of_life()
                self._drop_cancelled()  # the step frees their room: what waits for it starts before the next one
            self._step()
            self._on_step(len(self._active) + len(self._waiting))
            time.sleep(0)  # let `submit` run: a step holds the GIL
        for waiting in self._waiting:
            waiting.client.fail(_SHUTTING_DOWN, Progress())
        for active in list(self._active):
            self._end(active, _SHUTTING_DOWN)

    def _receive(self) -> bool:
        """Take all arrivals; wait for a request when idle. False when closing."""
        while not self._arrivals.empty() or not (self._active or self._waiting):
            arrival = self._arrivals.get()
            if arrival is None:
                return False
            if isinstance(arrival, _Waiting):
                self._waiting.append(arrival)
            else:
                with _talking_to_triton():
                    arrival()
        return True

    def _send_signs_of_life(self) -> None:
        """Write to streams that wait for their first token: Triton notices a closed connection only when it writes."""
        now_ns = time.monotonic_ns()
        if now_ns - self._signs_sent_ns < SIGN_OF_LIFE_NS:
            return
        self._signs_sent_ns = now_ns
        silent: list[_Waiting | _Active] = [active for active in self._active if not active.progress.token_ids]
        for each in [*silent, *self._waiting]:
            if each.request.streaming and now_ns - each.request.arrival_time_ns >= SIGN_OF_LIFE_NS:
                each.client.send(each.request, Progress(), final=False)

    def _drop_cancelled(self) -> None:
        for active in [active for active in self._active if active.client.is_cancelled()]:
            active.handle.cancel()
            active.client.cancel(active.progress)
            self._active.remove(active)
        for waiting in [waiting for waiting in self._waiting if waiting.client.is_cancelled()]:
            waiting.client.cancel(Progress())
            self._waiting.remove(waiting)

    def _start_waiting(self) -> None:
        """Add to the batch, in order of arrival, what the KV cache has room for."""
        while self._waiting and self._room.may_start(
            self._waiting[0].request.reserved_tokens, [active.request.reserved_tokens for active in self._active]
        ):
            self._add(self._waiting.popleft())

    def _add(self, waiting: _Waiting) -> None:
        request, client = waiting.request, waiting.client
        try:
            handle = self._pipeline.add_request(
                next(self._request_ids), prompt_tensor(request), request.generation_config
            )
        except Exception as error:
            client.fail(f"the engine refused the request: {error}", Progress())
        else:
            self._active.append(_Active(request, client, handle))

    def _step(self) -> None:
        started_ns = time.monotonic_ns()
        try:
            self._pipeline.step()
        except Exception as error:
            for active in list(self._active):
                self._end(active, f"the engine failed: {error}")
            return
        with _talking_to_triton():
            for active in list(self._active):
                active.progress.first_scheduled_time_ns = active.progress.first_scheduled_time_ns or started_ns
                self._collect(active)

    def _collect(self, active: _Active) -> None:
        """Add what the step generated to the request's progress, and send it to the client."""
        arrived = False
        while active.handle.can_read():
            for output in active.handle.read().values():
                arrived = True
                active.progress.token_ids.extend(output.generated_ids)
                active.progress.log_probs.extend(output.generated_log_probs)
        status = active.handle.get_status()
        if status == genai.GenerationStatus.IGNORED:
            self._end(active, "the KV cache has no room for the request")
        elif status != genai.GenerationStatus.RUNNING:
            self._finish(active)
        elif arrived:
            _stamp(active.progress)
            if active.request.streaming:
                active.client.send(active.request, active.progress, final=False)

    def _finish(self, active: _Active) -> None:
        _stamp(active.progress)
        _strip_end(active)
        active.client.send(active.request, active.progress, final=True)
        self._active.remove(active)

    def _end(self, active: _Active, reason: str) -> None:
        active.handle.cancel()
        active.client.fail(reason, active.progress)
        self._active.remove(active)


def _stamp(progress: Progress) -> None:
    progress.last_token_time_ns = time.monotonic_ns()
    progress.first_token_time_ns = progress.first_token_time_ns or progress.last_token_time_ns


def _strip_end(active: _Active) -> None:
    """TensorRT-LLM does not deliver the end token; GenAI does."""
    token_ids = active.progress.token_ids
    if token_ids and token_ids[-1] == active.request.end_id:
        del token_ids[-1], active.progress.log_probs[-1]
