"""Routes for operators: health checks and the version."""

import asyncio
import threading
from importlib.metadata import version

import httpx
import pytest

from frontend.server.routes import health
from tests.frontend.conftest import (
    CHAT,
    MAX_BODY_BYTES,
    MAX_QUEUE_LENGTH,
    REQUEST_TIMEOUT_S,
    Running,
    body,
    error_of,
)
from tests.frontend.fake_triton import Death, Endless, Events, FakeTriton, Refusal, Silence


def test_ready_follows_the_model_and_alive_does_not(http: httpx.Client, triton: FakeTriton) -> None:
    paths = ["/health", "/health/ready", "/health/live"]
    assert [(http.get(path).status_code, http.get(path).content) for path in paths] == [(200, b"")] * 3
    triton.ready = False
    assert [http.get(path).status_code for path in paths] == [503, 503, 200]


def test_version_has_the_product_the_model_the_engines_packages_and_the_limits(http: httpx.Client) -> None:
    assert http.get("/version").json() == {
        "version": version("mixtral-triton"),
        "model": "openvino",
        "engine": {"openvino": "2026.1"},
        "limits": {
            "max_model_len": 4096,
            "max_num_seqs": 4,
            "max_queue_length": MAX_QUEUE_LENGTH + 1,
            "max_body_bytes": MAX_BODY_BYTES,
            "request_timeout_s": REQUEST_TIMEOUT_S,
        },
    }


def test_load_counts_the_generations_that_run_or_wait(frontend: Running, http: httpx.Client) -> None:
    assert http.get("/load").json() == {"server_load": 0}
    frontend.triton.script = [Endless(6004)]
    with http.stream("POST", CHAT, json=body(stream=True, n=2)) as response:
        lines = response.iter_lines()
        next(lines)
        assert http.get("/load").json() == {"server_load": 2}


def test_health_generate_asks_for_one_token(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [Events([[6004], []])]
    assert http.get("/health/generate").status_code == 200
    [request] = triton.requests
    assert (request["request_output_len"], request["input_lengths"], request["end_id"]) == (1, 1, -1)


@pytest.mark.parametrize("failure", [Refusal(503, "model is not ready"), Events(["boom"]), Death()], ids=str)
def test_health_generate_is_503_if_the_engine_fails(http: httpx.Client, triton: FakeTriton, failure: object) -> None:
    triton.script = [failure]  # type: ignore[list-item]
    assert http.get("/health/generate").status_code == 503


def test_health_generate_is_503_if_the_engine_hangs(
    frontend: Running, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_GENERATE_TIMEOUT_S", 0.2)
    goes_on = threading.Event()
    frontend.triton.script = [Silence(goes_on), Endless(6004)]
    assert http.get("/health/generate").status_code == 503
    goes_on.set()
    frontend.wait_until(lambda: frontend.triton.num_cancelled == 1)


@pytest.mark.parametrize("num_waiting", [0, MAX_QUEUE_LENGTH])
@pytest.mark.parametrize("hangs", [False, True])
def test_busy_engine_is_healthy_if_other_requests_get_tokens(
    frontend: Running, http: httpx.Client, monkeypatch: pytest.MonkeyPatch, num_waiting: int, hangs: bool
) -> None:
    monkeypatch.setattr(health, "_GENERATE_TIMEOUT_S", 0.3)
    pause_s = 1.5 if hangs else 0.01
    frontend.triton.script = [Endless(6004, pause_s=pause_s)]
    num_running = frontend.triton.max_batch_size

    async def listen() -> None:
        async with httpx.AsyncClient(base_url=frontend.url, timeout=60) as client:
            streams = [
                asyncio.create_task(client.post(CHAT, json=body(stream=True))) for _ in range(num_running + num_waiting)
            ]
            await asyncio.to_thread(leave.wait)
            for stream in streams:
                stream.cancel()
            await asyncio.gather(*streams, return_exceptions=True)

    leave = threading.Event()
    listening = threading.Thread(target=asyncio.run, args=(listen(),))
    listening.start()
    try:
        frontend.wait_until(lambda: frontend.triton.num_running == num_running)
        frontend.wait_until(lambda: frontend.admission.num_waiting == num_waiting)
        assert http.get("/health/generate").status_code == (503 if hangs else 200)
        assert len(frontend.triton.requests) == num_running, "the check got no slot"
    finally:
        leave.set()
        listening.join()


HANGS = Refusal(400, "Stub process 'openvino_0_0' is not healthy.")
"""As Triton's Python backend answers when its process is frozen or has ended; it still calls the model ready."""


def test_an_engine_that_triton_has_given_up_on_is_503_and_not_ready_until_it_generates(
    http: httpx.Client, triton: FakeTriton
) -> None:
    triton.script = [HANGS]
    refused = http.post(CHAT, json=body())
    assert error_of(refused, 503)["code"] == "engine_unavailable"
    assert refused.headers["retry-after"] == "10"
    assert http.get("/health").status_code == 503
    triton.script = [Events([[6004], []])]
    assert http.post(CHAT, json=body()).status_code == 200
    assert http.get("/health").status_code == 200


def test_an_engine_that_was_started_again_is_ready_before_it_generates(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [HANGS]
    http.post(CHAT, json=body())
    triton.ready = False
    assert http.get("/health").status_code == 503
    triton.ready = True
    assert http.get("/health").status_code == 200
