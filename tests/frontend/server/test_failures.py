"""What a client gets when something fails, and that the engine stops when a client disconnects."""

import asyncio
import gc
import json
import threading
from typing import Any

import httpx
import pytest

from frontend.guided_decoding import GuideCompiler
from tests.frontend.conftest import CHAT, MAX_QUEUE_LENGTH, Running, body, error_of
from tests.frontend.fake_triton import Death, Endless, Events, FakeTriton, Refusal, Silence

HAUS = Events([[6004], [21209]])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (Refusal(503, "model is not ready /opt/x"), 503, "engine_unavailable"),
        (Refusal(500, "Exceeds maximum queue size"), 503, "engine_unavailable"),
        (Refusal(400, "assertion at /opt/secret.cpp:3"), 500, None),
        (Refusal(500, "Prompt length (9) exceeds maximum input length (8)"), 400, "context_length_exceeded"),
        (Events(["assertion at /opt/secret.cpp:3"]), 500, None),
        (Death(), 503, "engine_unavailable"),
    ],
    ids=str,
)
def test_engine_error_before_the_first_token_is_a_status_without_the_engines_message(
    http: httpx.Client, triton: FakeTriton, stream: bool, refusal: Any, status: int, code: str | None
) -> None:
    triton.script = [refusal]
    response = http.post(CHAT, json=body(stream=stream))
    assert error_of(response, status)["code"] == code
    assert "/opt" not in response.text


@pytest.mark.parametrize("failure", [Events(["assertion at /opt/secret.cpp:3"]), Death()], ids=str)
def test_engine_error_after_the_first_token_is_an_event_and_the_end_of_the_stream(
    http: httpx.Client, triton: FakeTriton, failure: Any
) -> None:
    triton.script = [Events([[6004]], pause_s=0.1), failure]
    response = http.post(CHAT, json=body(stream=True))
    events = [event for event in response.text.split("\n\n") if event]
    assert response.status_code == 200
    assert '"content":" Ein"' in events[1]
    assert json.loads(events[-1].removeprefix("data: "))["error"]["type"] == "server_error"
    assert "[DONE]" not in response.text
    assert "secret" not in response.text


def test_engine_error_after_the_first_token_of_a_json_body_is_a_status(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [HAUS, Events(["boom"])]
    error_of(http.post(CHAT, json=body()), 500)


def test_disconnect_during_a_stream_cancels_the_generation(frontend: Running, http: httpx.Client) -> None:
    frontend.triton.script = [Endless(6004)]
    with http.stream("POST", CHAT, json=body(stream=True)) as response:
        next(response.iter_lines())
    frontend.wait_until(lambda: frontend.triton.num_cancelled == 1)
    frontend.wait_until(lambda: frontend.admission.num_running == 0)


def test_disconnect_before_the_json_body_cancels_the_generation(frontend: Running, http: httpx.Client) -> None:
    frontend.triton.script = [Endless(6004)]
    with pytest.raises(httpx.ReadTimeout):
        http.post(CHAT, json=body(), timeout=0.3)
    frontend.wait_until(lambda: frontend.triton.num_cancelled == 1)
    frontend.wait_until(lambda: frontend.admission.num_running == 0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_before_the_first_response_keeps_its_slot_until_then(
    frontend: Running, http: httpx.Client, stream: bool
) -> None:
    """Triton notices a closed connection only when it writes, so until then the engine works on the request."""
    respond = threading.Event()
    frontend.triton.script = [Silence(respond), Endless(6004)]
    with pytest.raises(httpx.ReadTimeout):
        http.post(CHAT, json=body(stream=stream), timeout=0.3)
    assert (frontend.admission.num_running, frontend.triton.num_running) == (1, 1)
    respond.set()
    frontend.wait_until(lambda: frontend.triton.num_cancelled == 1)
    frontend.wait_until(lambda: frontend.admission.num_running == 0)


def test_an_engine_error_after_the_client_has_left_is_no_traceback(
    frontend: Running, http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio logs a failure that nothing has read, when its task is collected."""
    respond = threading.Event()
    frontend.triton.script = [Silence(respond), Events(["out of blocks"])]
    with pytest.raises(httpx.ReadTimeout):
        http.post(CHAT, json=body(), timeout=0.3)
    respond.set()
    frontend.wait_until(lambda: frontend.admission.num_running == 0)
    http.get("/health/live")  # the loop has had its turn
    gc.collect()
    assert "out of blocks" in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("stream", [False, True])
def test_answer_past_the_deadline_is_ended_and_cancelled(frontend: Running, stream: bool) -> None:
    frontend.triton.script = [Endless(6004, pause_s=0.02)]
    response = httpx.post(frontend.impatient_url + CHAT, json=body(stream=stream), timeout=60)
    assert response.status_code == (200 if stream else 504)
    assert '"code":"timeout"' in response.text
    frontend.wait_until(lambda: frontend.triton.num_cancelled == 1)


@pytest.fixture
def endless_compile(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Compiling never ends. The list gets an entry for each compilation that is cancelled."""
    ended = []

    async def compile_for_ever(*_: object) -> str:
        try:
            return await asyncio.Future()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    monkeypatch.setattr(GuideCompiler, "compile", compile_for_ever)
    return ended


def test_compiling_counts_towards_the_deadline(
    frontend: Running, triton: FakeTriton, endless_compile: list[str]
) -> None:
    response = httpx.post(frontend.impatient_url + CHAT, json=body(guided_regex="a"), timeout=60)
    assert error_of(response, 504)["code"] == "timeout"
    assert (endless_compile, triton.requests) == (["cancelled"], [])


def test_disconnect_while_compiling_cancels_the_compilation(
    frontend: Running, http: httpx.Client, endless_compile: list[str]
) -> None:
    with pytest.raises(httpx.ReadTimeout):
        http.post(CHAT, json=body(guided_regex="a"), timeout=0.3)
    frontend.wait_until(lambda: endless_compile == ["cancelled"])
    assert not frontend.triton.requests


def test_at_most_max_batch_size_run_and_a_full_queue_answers_429(frontend: Running, http: httpx.Client) -> None:
    frontend.triton.script = [Endless(6004)]
    num_accepted = frontend.triton.max_batch_size + MAX_QUEUE_LENGTH
    leave = threading.Event()
    streams = [threading.Thread(target=_listen_until, args=(frontend.url, leave)) for _ in range(num_accepted)]
    for stream in streams:
        stream.start()
    frontend.wait_until(lambda: frontend.admission.num_waiting == MAX_QUEUE_LENGTH)
    frontend.wait_until(lambda: frontend.triton.num_running == frontend.triton.max_batch_size)
    response = http.post(CHAT, json=body())
    # Before a client disconnects: the fake Triton notices that at its next write, when another may be running already.
    most_running = frontend.triton.most_running
    leave.set()
    for stream in streams:
        stream.join()
    assert error_of(response, 429)["code"] == "rate_limit_exceeded"
    assert int(response.headers["retry-after"]) >= 1
    assert most_running == frontend.triton.max_batch_size
    frontend.wait_until(lambda: frontend.admission.num_waiting == 0)


def _listen_until(url: str, leave: threading.Event) -> None:
    """A client that reads its stream, if it gets one, and disconnects once `leave` is set."""
    with httpx.Client(base_url=url, timeout=0.2) as client:
        try:
            with client.stream("POST", CHAT, json=body(stream=True), timeout=httpx.Timeout(5, read=1)) as response:
                for _ in response.iter_raw():
                    if leave.is_set():
                        return
        except httpx.ReadTimeout:
            return


def test_health_follows_the_model(http: httpx.Client, triton: FakeTriton) -> None:
    assert (http.get("/health").status_code, http.get("/health").content) == (200, b"")
    triton.ready = False
    assert http.get("/health").status_code == 503


def test_death_of_triton_ends_every_stream_with_an_error_within_two_seconds(
    frontend: Running, http: httpx.Client
) -> None:
    frontend.triton.script = [Endless(6004)]
    texts: list[str] = []

    def read() -> None:
        texts.append(httpx.post(frontend.url + CHAT, json=body(stream=True), timeout=60).text)

    streams = [threading.Thread(target=read) for _ in range(3)]
    for stream in streams:
        stream.start()
    frontend.wait_until(lambda: frontend.triton.num_running == 3)
    frontend.kill_triton()
    try:
        for stream in streams:
            stream.join(60)
        assert [text.count('data: {"error":') for text in texts] == [1, 1, 1]
        assert http.get("/health").status_code == 503
        assert error_of(http.post(CHAT, json=body()), 503)["code"] == "engine_unavailable"
    finally:
        frontend.revive_triton()
    frontend.triton.script = [HAUS]
    assert http.post(CHAT, json=body()).status_code == 200


def test_an_unexpected_exception_is_a_500_without_details(monkeypatch: pytest.MonkeyPatch, http: httpx.Client) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("frontend.server.routes.generate.to_chat_job", broken)
    response = http.post(CHAT, json=body())
    assert error_of(response, 500)["type"] == "server_error"
    assert "secret" not in response.text
