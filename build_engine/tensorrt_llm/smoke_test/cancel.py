"""A closed connection ends its own request and no other; so does the input `stop`."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from typing import Any

from build_engine.errors import EngineError

from .answers import PROMPTS
from .client import Answer, as_list, read_answer
from .inputs import STOP
from .model import Model, tokens_alike

_LONG_ANSWER = 4096
"""Tokens of an answer that would take much longer than anything here waits: 20 s at 200 tokens/s."""
_READ_EVENTS = 8
_CANCEL_TIMEOUT_S = 5.0
"""Triton notices a closed connection at the next token, and reports how many requests are active ten times a second."""
_POLL_S = 0.05
_ID = "smoke"


def check_stop(model: Model) -> Iterator[str]:
    """Lines for the log. Raises EngineError if a stream goes on though a request with its id asks to stop it."""
    if STOP not in model.optional:
        return
    request = _long_request(model)
    with model.client.stream({**request, "id": _ID}) as events:
        num_tokens = _count(islice(events, _READ_EVENTS))
        model.client.generate({**model.request(PROMPTS[0].text, 1), STOP: True, "id": _ID})
        num_tokens += _count(events)
    if num_tokens >= request["request_output_len"]:
        raise EngineError(f"the engine generated all {num_tokens} tokens of a request that was stopped")
    yield f"stop: an answer ended after {num_tokens} of {request['request_output_len']} tokens"


def check_cancel(model: Model, request: Mapping[str, Any], alone: Answer) -> Iterator[str]:
    """Lines for the log. `alone` is the answer to `request`, which is sent again while a longer one is closed.

    Raises EngineError if the answer changes by more than rounding explains, or if the longer one stays in the engine.
    """
    with ExitStack() as longer:
        ignored = longer.enter_context(model.client.stream(_long_request(model)))
        _count(islice(ignored, _READ_EVENTS))
        with model.client.stream(request) as events:
            beside = model.checked(read_answer(_closing(longer, events)))
    alike = tokens_alike(alone, beside)
    yield f"cancel: beside a closed stream, {len(beside.token_ids)} tokens, alike for {alike} with those alone"
    yield f"cancel: {_wait_until_idle(model)}"


def _closing(longer: ExitStack, events: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The events, after the first of which the longer stream is closed."""
    for event in events:
        longer.close()
        yield event


def _wait_until_idle(model: Model) -> str:
    started = time.monotonic()
    while active := model.client.num_active():
        if time.monotonic() - started > _CANCEL_TIMEOUT_S:
            raise EngineError(
                f"{active} request is active {_CANCEL_TIMEOUT_S:g} s after the last answer; accepted: none, because the"
                " connection of the other was closed"
            )
        time.sleep(_POLL_S)
    if active is None:
        return "Triton does not report how many requests are active, so whether the closed one ended is not known"
    return f"no request is active {time.monotonic() - started:.1f} s after the last answer"


def _long_request(model: Model) -> dict[str, Any]:
    text = PROMPTS[0].text
    return model.request(text, min(_LONG_ANSWER, model.max_seq_len - len(model.encode(text))))


def _count(events: Iterator[Mapping[str, Any]]) -> int:
    return sum(len(as_list(event.get("output_ids", []))) for event in events)
