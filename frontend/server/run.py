"""Run generations: queue, engine and decoder as one coroutine, for JSON bodies, streams and the health check."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from frontend.generation import Delta, GenerationRequest, TokenChunk
from frontend.text.detokenizer import AnswerDecoder

from .admission import Reservation
from .service import Service


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation: the request to the engine, and the decoder of its tokens."""

    request: GenerationRequest
    decoder: AnswerDecoder


class Listener(Protocol):
    """Called in the event loop while generations run, so it must not block. `index` counts the generations from 0."""

    def on_deltas(self, index: int, deltas: Sequence[Delta]) -> None:
        """A generation has grown. The first call for any generation means that the engine has begun to answer."""

    def on_finish(self, index: int) -> None:
        """A generation is complete; its decoder has the outcome."""


async def run(service: Service, generations: Sequence[Generation], listener: Listener, caller: str) -> None:
    """Run the generations side by side, each as soon as `caller` gets a slot for it.

    Cancelling this cancels the engine's work and frees the slots. Raises QueueFull at once if they do not fit into the
    queue, EngineUnavailable, EngineFailed, ContextLengthExceeded, and what the listener raises.
    """
    with service.admission.reserve(caller, len(generations)) as reservation:
        await all_of(
            [
                _run_one(service, generation, index, listener, reservation)
                for index, generation in enumerate(generations)
            ]
        )


async def _run_one(
    service: Service, generation: Generation, index: int, listener: Listener, reservation: Reservation
) -> None:
    decoder = generation.decoder

    def on_chunks(chunks: Sequence[TokenChunk]) -> bool:
        listener.on_deltas(index, [decoder.feed(chunk) for chunk in chunks])
        return decoder.is_complete

    async with reservation.slot():
        await service.triton.generate(generation.request, on_chunks)
    listener.on_deltas(index, [decoder.finish()])
    listener.on_finish(index)


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
