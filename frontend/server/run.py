"""Run generations: queue, engine and decoder as one coroutine, for JSON bodies, streams and the health check."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from frontend.generation import Delta, GenerationRequest, TokenChunk
from frontend.text.detokenizer import AnswerDecoder

from .admission import Slots
from .service import Service


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation: the request to the engine, the decoder of its tokens, and headers that the engine gets."""

    request: GenerationRequest
    decoder: AnswerDecoder
    headers: Mapping[str, str] = field(default_factory=dict)


class Listener(Protocol):
    """Called in the event loop while generations run, so it must not block. `index` counts the generations from 0."""

    def on_start(self, index: int) -> None:
        """A generation has got its slot, and is sent to the engine."""

    def on_deltas(self, index: int, deltas: Sequence[Delta]) -> None:
        """A generation has grown. The first call for any generation means that the engine has begun to answer."""

    def on_finish(self, index: int) -> None:
        """A generation is complete; its decoder has the outcome."""


async def run(service: Service, generations: Sequence[Generation], listener: Listener, caller: str) -> None:
    """Run the generations side by side, each as soon as `caller` gets a slot for it.

    Cancelling this cancels the engine's work and frees the slots; a generation without a response so far keeps its slot
    until the engine responds. Raises QueueFull at once if they do not fit into the queue, EngineUnavailable,
    EngineFailed, ContextLengthExceeded, and what the listener raises.
    """
    async with service.admission.reserve(caller, len(generations)) as reservation:
        await all_of(
            [
                _run_one(service, generation, index, listener, reservation)
                for index, generation in enumerate(generations)
            ]
        )


async def _run_one(
    service: Service, generation: Generation, index: int, listener: Listener, reservation: Slots
) -> None:
    decoder = generation.decoder

    def on_chunks(chunks: Sequence[TokenChunk]) -> bool:
        deltas = [decoder.feed(chunk) for chunk in chunks]
        if any(chunk.token_ids for chunk in chunks):
            listener.on_deltas(index, deltas)
        return decoder.is_complete

    call = _EngineCall(partial(listener.on_start, index), on_chunks)
    await call.run(_generate(service, generation, call, reservation), service.left)
    listener.on_deltas(index, [decoder.finish()])
    listener.on_finish(index)


async def _generate(service: Service, generation: Generation, call: "_EngineCall", reservation: Slots) -> None:
    async with reservation.slot():
        call.start()
        await service.triton.generate(generation.request, call.on_chunks, generation.headers)


class _EngineCall:
    """A generation in a task of its own, which keeps its slot until the engine has written to it.

    Triton notices a closed connection only when it writes. So a client that leaves before that leaves its connection to
    Triton open, and its slot taken, until the first response: the engine never has more requests than there are slots.
    """

    def __init__(self, on_start: Callable[[], None], on_chunks: Callable[[Sequence[TokenChunk]], bool]) -> None:
        self._on_start = on_start
        self._on_chunks = on_chunks
        self._client_has_left = False
        self.is_silent = False
        """The request is in the engine, which has not written to it yet."""

    def start(self) -> None:
        """The slot is there, and the request is about to be sent."""
        self.is_silent = True
        self._on_start()

    def on_chunks(self, chunks: Sequence[TokenChunk]) -> bool:
        """Pass the chunks on. True ends the request in Triton."""
        self.is_silent = False
        return self._client_has_left or self._on_chunks(chunks)

    async def run(self, generating: Coroutine[Any, Any, None], left: set[asyncio.Task[None]]) -> None:
        """Await the generation. Cancelled while the engine is silent, its task stays in `left` until it ends."""
        task = asyncio.ensure_future(generating)
        try:
            await asyncio.wait([task])  # in place of shield, whose own future may hold a failure that is never read
        except asyncio.CancelledError:
            if self.is_silent and not task.done():
                self._client_has_left = True
                left.add(task)
                task.add_done_callback(left.discard)
                task.add_done_callback(_forget)
            else:
                task.cancel()
                await asyncio.wait([task])
                _forget(task)
            raise
        task.result()


def _forget(task: asyncio.Task[None]) -> None:
    """Read its failure, as asyncio logs one that was never read. The engine's message is in the log already."""
    if not task.cancelled():
        task.exception()


async def all_of(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run them side by side. The first that fails cancels the others; all have ended when this returns."""
    if len(works) == 1:
        await works[0]
        return
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        # Read also when this is cancelled: asyncio logs failures that were never retrieved.
        failures = [failure for task in tasks if not task.cancelled() and (failure := task.exception())]
    if failures:
        raise failures[0]
