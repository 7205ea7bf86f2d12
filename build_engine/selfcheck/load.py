"""Requests to a served engine: those of the smoke test, many at once, closed ones, little KV cache, and SIGTERM."""

import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

from build_engine.errors import EngineError
from build_engine.tensorrt_llm.smoke_test.answers import HOUSE, PROMPTS, check_answers
from build_engine.tensorrt_llm.smoke_test.cancel import check_cancel, check_stop
from build_engine.tensorrt_llm.smoke_test.client import Answer, as_list
from build_engine.tensorrt_llm.smoke_test.inputs import check_guided, check_inputs
from build_engine.tensorrt_llm.smoke_test.model import NUM_TOKENS, Model, check_complete, tokens_alike

from .report import Check
from .server import EXIT_TIMEOUT_S, Server

KV_TOKENS = 512
"""Tokens of KV cache for `little_cache`: two or three of its eight requests fit at a time."""
NUM_STREAMS = 64
_CLOSED = 8
_CLOSE_TIMEOUT_S = 10.0
_POLL_S = 0.05
_LONG = 4000
"""Tokens of a stream that is not to end by itself while something is done to it."""
_GUIDED_LETTERS = 96
_QUEUED_TOKENS = 160
SUBJECTS = (
    "fixed prompts",
    "same prompt twice",
    "each optional input",
    "guided decoding",
    "stop",
    "cancelled beside another",
    f"{NUM_STREAMS} streams",
    "closed connections",
    "SIGTERM in mid-stream",
)


def load_checks(server: Server, model: Model) -> Iterator[tuple[str, Check]]:
    """The checks of SUBJECTS, in order; SIGTERM is last, because it ends the server."""
    checks: list[Check] = [
        partial(_fixed_prompts, model),
        partial(_twice, model),
        lambda: _lines(check_inputs(model)),
        lambda: _lines(check_guided(model), "guided decoding: "),
        lambda: _lines(check_stop(model), "stop: "),
        partial(_cancelled, model),
        partial(_many_streams, model),
        partial(_closed_connections, model),
        partial(_sigterm, server, model),
    ]
    return zip(SUBJECTS, checks, strict=True)


def _lines(lines: Iterable[str], prefix: str = "") -> str:
    """The smoke test's lines for its log as one. Each begins with `prefix`."""
    return "; ".join(line.removeprefix(prefix) for line in lines) or "config.pbtxt does not declare it"


def _fixed_prompts(model: Model) -> str:
    """Their text is random, as the weights are."""
    list(check_answers(model, judged=False))
    return f"{len(PROMPTS)} answered, with tokens of the vocabulary and finite log probabilities"


def _house(model: Model) -> dict[str, Any]:
    return model.request(HOUSE.text, return_log_probs=True)


def _twice(model: Model) -> str:
    first, second = (model.generate(_house(model)) for _ in range(2))
    return f"{tokens_alike(first, second)} of {NUM_TOKENS} tokens are the same"


def _cancelled(model: Model) -> str:
    return _lines(check_cancel(model, _house(model), model.generate(_house(model))), "cancel: ")


def _long(model: Model) -> dict[str, Any]:
    text = "[INST] Count. [/INST]"
    return model.request(text, min(_LONG, model.max_seq_len - len(model.encode(text))))


def _many_streams(model: Model) -> str:
    """Each answer is the one that the same request gets alone, as far as rounding allows."""
    requests = [
        model.request(f"[INST] What is house number {number}? [/INST]", return_log_probs=True)
        for number in range(NUM_STREAMS)
    ]
    alone = [model.generate(request) for request in requests]
    together = _all_at_once(model.generate, requests)
    same = sum(tokens_alike(*pair) == NUM_TOKENS for pair in zip(alone, together, strict=True))
    return f"all complete; {same} answers are the same to the last token as alone"


def _all_at_once(generate: Callable[[Mapping[str, Any]], Answer], requests: list[dict[str, Any]]) -> list[Answer]:
    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(generate, requests))


def _closed_connections(model: Model) -> str:
    """Requests of closed connections leave the engine, while another goes on. At the end none is active."""
    with model.client.stream(_long(model)) as kept:
        next(kept)
        with ExitStack() as closed:
            for _ in range(_CLOSED):
                next(closed.enter_context(model.client.stream(_long(model))))
        seconds = _until_active(model, at_most=1)
    last = _until_active(model, at_most=0)
    return f"{_CLOSED} of {_CLOSED + 1} closed: 1 was active {seconds:.1f} s later, and 0 {last:.1f} s after the last"


def _until_active(model: Model, *, at_most: int) -> float:
    """Seconds until no more requests than that are active. Raises EngineError if it takes too long."""
    started = time.monotonic()
    while (active := model.client.num_active()) is None or active > at_most:
        if (passed := time.monotonic() - started) > _CLOSE_TIMEOUT_S:
            raise EngineError(f"{active} requests are active {passed:.0f} s after a close; accepted: at most {at_most}")
        time.sleep(_POLL_S)
    return time.monotonic() - started


def _sigterm(server: Server, model: Model) -> str:
    """A running stream is completed, or gets an error that says so, and Triton ends with status 0."""
    asked = _long(model)["request_output_len"]
    with model.client.stream(_long(model)) as events:
        received = _num_tokens(next(events))
        server.process.send_signal(signal.SIGTERM)
        stopped = time.monotonic()
        try:
            received += sum(map(_num_tokens, events))
            ending = f"was completed with {received} tokens"
        except EngineError as error:
            received, ending = asked, f"ended with an error: {error}"
    seconds = time.monotonic() - stopped
    if received != asked:
        raise EngineError(f"the stream ended with {received} of {asked} tokens and no error")
    if seconds > 1.5 * EXIT_TIMEOUT_S:
        raise EngineError(f"the stream ended {seconds:.0f} s after SIGTERM; accepted: {EXIT_TIMEOUT_S:.0f}")
    if status := server.wait():
        raise EngineError(f"Triton ended with status {status} after SIGTERM; accepted: 0")
    return f"the stream {ending} in {seconds:.1f} s, and Triton ended with status 0"


def _num_tokens(event: Mapping[str, Any]) -> int:
    return len(as_list(event.get("output_ids", [])))


def little_cache(server: Server, model: Model) -> str:
    """With KV cache for two or three requests, eight are completed without a pause, a guided one among them."""
    guide = {
        "guided_decoding_guide_type": "ebnf_grammar",
        "guided_decoding_guide": "root ::= " + " ".join(["[a-z]"] * _GUIDED_LETTERS),
    }
    end_id = model.end_tokens.end_id
    requests = [model.request("[INST] Write. [/INST]", _QUEUED_TOKENS, end_id=end_id, **guide)]
    requests += [model.request(f"[INST] What is number {number}? [/INST]", _QUEUED_TOKENS) for number in range(7)]
    guided, *others = _all_at_once(model.generate, requests)
    for answer in others:
        check_complete(answer, _QUEUED_TOKENS)
    text = model.decode(guided.token_ids)
    if not re.fullmatch(rf"[a-z]{{{_GUIDED_LETTERS}}}", text):
        raise EngineError(f"the guided answer is {text[:40]!r}...; accepted: {_GUIDED_LETTERS} letters")
    paused = server.gauge("nv_trt_llm_inflight_batcher_metrics", "paused_requests")
    if paused:
        raise EngineError(f"{paused} requests are paused; accepted: none with guaranteed_no_evict")
    known = "none paused" if paused == 0 else "Triton does not report how many are paused"
    return f"{len(requests)} requests in {KV_TOKENS} tokens of KV cache: complete, the guided one valid, {known}"
