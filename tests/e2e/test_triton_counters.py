"""Triton's own figures of the CPU engine's requests: what is right, and what the Python backend cannot report."""

import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from .conftest import PROMPT, Server, events, wait_for

US = 1e6
REQUEST, QUEUE, COMPUTE = [f"nv_inference_{part}_duration_us" for part in ("request", "queue", "compute_infer")]
SUCCESS, FAILURE = "nv_inference_request_success", "nv_inference_request_failure"
LENGTH = 200


def counters(server: Server) -> dict[str, float]:
    """The counters of requests; failures by name and reason."""
    with urllib.request.urlopen(f"{server.metrics}/metrics") as response:
        text = response.read().decode()
    found = re.findall(r"^(nv_inference_\w+)\{([^}]*)\} (\S+)$", text, re.MULTILINE)
    named = [(name, re.search(r'reason="(\w+)"', labels), value) for name, labels, value in found]
    values: dict[str, float] = {}
    for name, reason, value in named:
        key = f"{name} {reason[1]}" if reason else name
        assert key not in values, "the CPU engine has added a series of its own"
        values[key] = float(value)
    return values


class Growth:
    """By how much the counters have grown."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._before = counters(server)

    def __call__(self, name: str) -> float:
        return counters(self._server)[name] - self._before[name]


@pytest.fixture
def growth(server: Server) -> Growth:
    """From an idle server on, all of whose requests have been counted."""
    wait_for(lambda: server.active() == 0, "an idle server")
    time.sleep(0.3)
    return Growth(server)


def timed(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def answer(server: Server, **inputs: Any) -> list[dict[str, Any]]:
    return list(events(server, request_output_len=LENGTH, end_id=-1, **inputs))


@contextmanager
def stream(server: Server) -> Iterator[None]:
    """A client that leaves after its first response."""
    url = f"{server.triton}/v2/models/openvino/generate_stream"
    body = {
        "input_ids": PROMPT,
        "input_lengths": len(PROMPT),
        "request_output_len": 480,
        "end_id": -1,
        "streaming": True,
    }
    with httpx.stream("POST", url, json=body, headers=server.triton_headers, timeout=60) as response:
        next(response.iter_lines())
        yield


def test_the_time_of_a_request_is_that_until_its_last_response(server: Server, growth: Growth) -> None:
    """More requests than slots: the time in which one waits for room counts too. The engine's own times are a part of
    Triton's, which are a part of what clients see."""
    lasts: list[dict[str, Any]] = []
    with ThreadPoolExecutor(12) as pool:
        answers = [lambda: lasts.append(answer(server, return_perf_metrics=True)[-1])] * 12
        seen_s = sum(pool.map(timed, answers))
    in_engine_us = sum(last["last_token_time_ns"] - last["arrival_time_ns"] for last in lasts) / 1000
    waited_us = sum(last["first_scheduled_time_ns"] - last["arrival_time_ns"] for last in lasts) / 1000
    wait_for(lambda: server.active() == 0, "an idle server")
    wait_for(lambda: growth(REQUEST) > 0.98 * in_engine_us, f"{in_engine_us / US:.1f} s to be counted")
    assert growth(REQUEST) < seen_s * US
    assert growth(SUCCESS) == 12
    assert growth(QUEUE) > 0.95 * waited_us
    assert growth(QUEUE) + growth(COMPUTE) == pytest.approx(growth(REQUEST), rel=0.05)


def test_a_cancelled_request_is_a_failure_of_that_reason(server: Server, growth: Growth) -> None:
    with stream(server):
        pass
    wait_for(lambda: growth(f"{FAILURE} CANCELED") == 1, "the cancelled request to be counted")
    assert growth(f"{FAILURE} BACKEND") == 0


def test_a_refused_request_is_a_failure_of_the_backend(server: Server, growth: Growth) -> None:
    (refused,) = events(server, input_lengths=3)
    assert "input_lengths is 3" in refused["error"]
    wait_for(lambda: growth(f"{FAILURE} BACKEND") == 1, "the refused request to be counted")
    invalid = {"guided_decoding_guide_type": "ebnf_grammar", "guided_decoding_guide": "root ::= ("}
    (refused,) = events(server, **invalid)
    assert "error" in refused
    wait_for(lambda: growth(f"{FAILURE} BACKEND") == 2, "the refused guide to be counted")
    assert growth(f"{FAILURE} CANCELED") == 0


def test_a_success_is_counted_when_the_engine_takes_a_request(server: Server, growth: Growth) -> None:
    """And cannot be taken back: complete answers are successes less failures."""
    with stream(server):
        assert growth(SUCCESS) == 1
    wait_for(lambda: growth(f"{FAILURE} CANCELED") == 1, "the cancelled request to be counted")
    assert growth(SUCCESS) == 1


def test_the_statistics_api_has_the_time_until_the_engine_took_a_request(server: Server, growth: Growth) -> None:
    """What perf_analyzer prints as the server's times comes from there. Its clients' times are right."""

    def statistics() -> dict[str, Any]:
        url = f"{server.triton}/v2/models/openvino/stats"
        (model,) = httpx.get(url, headers=server.triton_headers).json()["model_stats"]
        success: dict[str, Any] = model["inference_stats"]["success"]
        return success

    before = statistics()
    took_s = timed(lambda: answer(server))
    after = statistics()
    assert after["count"] - before["count"] == 1
    assert (after["ns"] - before["ns"]) / 1e9 < 0.2 * took_s
