"""The log of requests: a line on arrival, a line at the end whatever the status, and no text of a client in either."""

import io
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest.mock import Mock

import httpx
import orjson
import pytest

from frontend.errors import NotFound
from frontend.generation import EndTokens, GenerationRequest, SamplingParams
from frontend.openai.job import Job
from frontend.server.log import log_handler
from frontend.server.request_log import RequestLog, log_answer
from frontend.server.request_record import RequestRecord
from tests.frontend.conftest import API_KEY, CHAT, MAX_BODY_BYTES, MODEL, Running, body
from tests.frontend.fake_triton import Endless, Events, FakeTriton, Refusal

KEY = {"authorization": f"Bearer {API_KEY}"}
NUMBER = r"\d+\.\d+"


class Log:
    """What the frontend has written since the test began."""

    def __init__(self, running: Running, stream: io.StringIO) -> None:
        self._running = running
        self._stream = stream

    def find(self, pattern: str) -> "re.Match[str]":
        """The line that matches, once it has been written. A client may have its answer before that."""
        self._running.wait_until(lambda: re.search(pattern, self._stream.getvalue(), re.MULTILINE) is not None)
        found = re.search(pattern, self._stream.getvalue(), re.MULTILINE)
        assert found is not None
        return found

    @property
    def text(self) -> str:
        return self._stream.getvalue()


def writes_to(log_format: str, frontend: Running) -> Iterator[Log]:
    stream, handler, logger = io.StringIO(), log_handler(log_format), logging.getLogger("frontend")
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield Log(frontend, stream)
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def log(frontend: Running) -> Iterator[Log]:
    """As text."""
    yield from writes_to("text", frontend)


@pytest.fixture
def json_log(frontend: Running) -> Iterator[Log]:
    """As JSON."""
    yield from writes_to("json", frontend)


def test_a_request_is_logged_when_it_arrives(http: httpx.Client, log: Log) -> None:
    answer = http.post(CHAT, json=body(temperature=0.2, max_tokens=7, seed=5, n=2)).json()
    line = log.find(r"Received request (\S+): for 127\.0\.0\.1, (\d+) prompt tokens, (.*)$")
    assert line.group(1, 2) == (answer["id"], str(answer["usage"]["prompt_tokens"]))
    assert line[3] == "sampling_params: SamplingParams(n=2, max_tokens=7, temperature=0.2, top_p=1.0, seed=5)"


def test_parameters_with_text_are_counted(http: httpx.Client, log: Log) -> None:
    http.post(CHAT, json=body(stop=["one", "two"], logit_bias={"3": 1}, guided_choice=["three"], stop_token_ids=[9, 8]))
    line = log.find("Received request.*")[0]
    assert "stop='2 strings', stop_token_ids=[8, 9], logit_bias='1 tokens', guided_by='guided_choice'" in line


def test_an_answer_is_one_line_with_what_it_took(guarded: httpx.Client, triton: FakeTriton, log: Log) -> None:
    triton.script = [Events([[6004]]), Events([[6004, 6004]]), Events([[]])]
    answer = guarded.post(CHAT, json=body(), headers={**KEY, "x-request-id": "mine"}).json()
    name = r"sha256:[0-9a-f]{8}"
    log.find(
        rf"\[mine\] Finished request {answer['id']} stop: {answer['usage']['prompt_tokens']} prompt tokens, "
        rf"3 completion tokens, {NUMBER} s, for {name} from 127\.0\.0\.1: POST {CHAT} 200, "
        rf"first token after {NUMBER} s, {NUMBER} tokens/s$"
    )


def test_a_prompt_with_several_answers_counts_once(http: httpx.Client, log: Log) -> None:
    usage = http.post(CHAT, json=body(n=3, max_tokens=2)).json()["usage"]
    log.find(f": {usage['prompt_tokens']} prompt tokens, {usage['completion_tokens']} completion tokens, ")


def test_cached_tokens_are_in_the_line_where_the_engine_reports_them(
    frontend: Running, triton: FakeTriton, log: Log
) -> None:
    with httpx.Client(base_url=frontend.details_url) as http:
        http.post(CHAT, json=body())
    log.find(r"Finished request .*, \d+ cached tokens$")


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "reason"),
    [
        ("GET", "/v1/models", None, 200, ""),
        ("POST", "/tokenize", {"prompt": "Hi"}, 200, ""),
        ("POST", CHAT, body(temperature=9), 400, "Invalid `temperature`: .*"),
        ("POST", CHAT, body(model="gpt-4"), 404, "The model `gpt-4` does not exist.*"),
        ("GET", "/nothing", None, 404, "There is no GET /nothing."),
        ("GET", CHAT, None, 405, f"GET {CHAT} is not allowed."),
        ("POST", CHAT, {"messages": "x" * MAX_BODY_BYTES}, 413, f"The body is larger than {MAX_BODY_BYTES} bytes."),
    ],
)
def test_every_other_answer_and_refusal_is_one_line(
    http: httpx.Client, log: Log, method: str, path: str, sent: Any, status: int, reason: str
) -> None:
    assert http.request(method, path, json=sent, headers={"x-request-id": "mine"}).status_code == status
    reason = f" {reason}" if reason else ""
    log.find(rf"\[mine\] {method} {path} from 127\.0\.0\.1: {status}{reason} \({NUMBER} s\)$")
    assert log.text.count("[mine]") == 1


def test_a_body_of_another_type_is_one_line(http: httpx.Client, log: Log) -> None:
    http.post(CHAT, content=b"Hi", headers={"content-type": "text/plain"})
    log.find(rf"POST {CHAT} from 127\.0\.0\.1: 415 The body must be application/json")


def test_a_refused_key_is_a_line_with_the_address(guarded: httpx.Client, log: Log) -> None:
    guarded.get("/v1/models", headers={"authorization": "Bearer wrong"})
    log.find(r"GET /v1/models from 127\.0\.0\.1: 401 The API key is not known here. \(")


def test_a_line_of_a_known_key_has_the_key_and_the_address(guarded: httpx.Client, log: Log) -> None:
    guarded.get("/nothing", headers=KEY)
    log.find(rf"GET /nothing from sha256:[0-9a-f]{{8}}: 404 There is no GET /nothing. \(127\.0\.0\.1, {NUMBER} s\)$")


def test_a_full_queue_is_a_line_after_that_of_the_arrival(http: httpx.Client, frontend: Running, log: Log) -> None:
    frontend.triton.script = [Endless(6004)]
    with http.stream("POST", CHAT, json=body(stream=True, n=frontend.triton.max_batch_size + 2)):
        frontend.wait_until(lambda: frontend.admission.num_waiting == 2)
        assert http.post(CHAT, json=body()).status_code == 429
    log.find(rf"POST {CHAT} from 127\.0\.0\.1: 429 The server is busy: 2 generations")
    log.find(r"Aborted request cmpl-\S+ 499 client left: .* 499, first token after")


def test_an_engine_that_fails_is_a_line_of_level_warning(http: httpx.Client, triton: FakeTriton, log: Log) -> None:
    triton.script = [Refusal(500, "boom")]
    assert http.post(CHAT, json=body()).status_code == 500
    log.find(r"WARNING \S+ \[\S+\] Failed request cmpl-\S+ 500 The engine could not complete the request.: .* 500$")


def test_a_stream_that_fails_has_the_status_of_its_error(http: httpx.Client, triton: FakeTriton, log: Log) -> None:
    triton.script = [Events([[6004]], pause_s=0.05), Events(["boom"])]
    assert http.post(CHAT, json=body(stream=True)).status_code == 200
    log.find(rf"Failed request cmpl-\S+ 500 The engine .*: POST {CHAT} 500, first token after")


def test_health_checks_that_succeed_are_of_level_debug(http: httpx.Client, log: Log) -> None:
    for path in ("/health", "/health/live", "/health/ready", "/metrics"):
        assert http.get(path).status_code == 200
        log.find(rf"DEBUG \S+ \[\S+\] GET {path} from")
    assert " INFO " not in log.text


def test_json_has_the_same_as_fields(guarded: httpx.Client, json_log: Log) -> None:
    answer = guarded.post(CHAT, json=body(max_tokens=2), headers={**KEY, "x-request-id": "mine"}).json()
    json_log.find("Finished request")
    lines = [orjson.loads(line) for line in json_log.text.splitlines()]
    received, answered = [line for line in lines if line["request_id"] == "mine"]
    assert received["event"] == "received"
    assert received["sampling_params"]["max_tokens"] == 2
    assert received["id"] == answered["id"] == answer["id"]
    assert answered["key"].startswith("sha256:")
    usage = answer["usage"]
    assert {name: answered[name] for name in ("event", "level", "status", "finish_reason", "address", "path")} == {
        "event": "answered", "level": "INFO", "status": 200, "finish_reason": "stop", "address": "127.0.0.1",
        "path": CHAT,
    }  # fmt: skip
    assert (answered["prompt_tokens"], answered["completion_tokens"]) == (
        usage["prompt_tokens"],
        usage["completion_tokens"],
    )
    assert answered["time_to_first_token_s"] <= answered["total_s"]
    guarded.get("/nothing", headers=KEY)
    json_log.find("There is no GET /nothing")
    refused = orjson.loads(json_log.text.splitlines()[-1])
    assert (refused["status"], refused["reason"], "code" in refused) == (404, "There is no GET /nothing.", False)


def record() -> RequestRecord:
    return RequestRecord(method="POST", path=CHAT, address="::1", arrived_at=0)


def job(*prompts: str, num_choices: int = 1) -> Job:
    """A job of prompts whose token ids are the code points of their characters."""
    requests = [
        GenerationRequest(
            prompt_token_ids=list(map(ord, prompt)),
            sampling_params=SamplingParams(max_tokens=3, temperature=0, top_p=1, seed=0, stop=("Ende",)),
            end_tokens=EndTokens(end_id=2, pad_id=2),
        )
        for prompt in prompts
        for _ in range(num_choices)
    ]
    return Job(id="cmpl-1", model="m", requests=requests, writer=Mock(), stream=False, num_choices=num_choices)


def decode(token_ids: Sequence[int]) -> str:
    return "".join(map(chr, token_ids))


def test_prompts_are_logged_where_the_operator_asks_for_them(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "frontend")
    RequestLog(decode=decode).received(record(), job("Was ist", " ein Haus", num_choices=2))
    RequestLog(decode=decode, max_chars=3).received(record(), job("Was ist ein Haus?"))
    RequestLog(is_enabled=False, decode=decode).received(record(), job("Was ist ein Haus?"))
    assert caplog.messages == [
        "Received request cmpl-1: prompt: 'Was ist ein Haus', sampling_params: SamplingParams(n=2, max_tokens=3, "
        "temperature=0, top_p=1, seed=0, stop=('Ende',)), "
        f"prompt_token_ids: {list(map(ord, 'Was ist ein Haus'))}, for ::1, 16 prompt tokens in 2 prompts",
        "Received request cmpl-1: prompt: 'Was', sampling_params: SamplingParams(n=1, max_tokens=3, temperature=0, "
        "top_p=1, seed=0, stop=('Ende',)), prompt_token_ids: [87, 97, 115], for ::1, 17 prompt tokens",
    ]


CANARY = "Quittenbrot"

REQUESTS: list[Callable[[], dict[str, Any]]] = [
    lambda: body(messages=[{"role": "user", "content": CANARY}], stop=[CANARY]),
    lambda: body(messages=[{"role": "user", "content": CANARY}], stream=True, logprobs=True),
    lambda: body(messages=[{"role": CANARY, "content": CANARY}]),
    lambda: body(messages=CANARY),
    lambda: body(messages=[{"role": "assistant", "content": CANARY}] * 2),
    lambda: body(messages=[{"role": "user", "content": CANARY}], max_tokens=10**6),
    lambda: body(messages=[{"role": "user", "content": CANARY * 9000}]),
    lambda: body(guided_choice=[CANARY]),
    lambda: body(guided_regex=f"({CANARY}"),
    lambda: body(guided_json={"type": CANARY, "const": CANARY}),
    lambda: body(user=CANARY, chat_template_kwargs={"words": CANARY}),
    lambda: {"model": MODEL, "prompt": CANARY, "echo": True},
]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_text_of_a_prompt_an_answer_or_a_key_is_logged(
    frontend: Running, guarded: httpx.Client, triton: FakeTriton, log_format: str
) -> None:
    model_says = guarded.post("/tokenize", json={"prompt": CANARY, "add_special_tokens": False}, headers=KEY).json()
    for log in writes_to(log_format, frontend):
        triton.script = [Events([model_says["tokens"]]), Events([[]])]
        answers = ""
        for number, request in enumerate(REQUESTS):
            sent = request()
            path = "/v1/completions" if "prompt" in sent else CHAT
            headers = {**KEY, "x-request-id": f"number-{number}"}
            answers += guarded.post(path, json=sent, headers=headers).text
            log.find(f"number-{number}\\W.*completion tokens|number-{number}\\W.* from sha256")
        guarded.post(CHAT, json=body(), headers={"authorization": f"Bearer {CANARY}"})
        guarded.get(f"/v1/models?key={CANARY}", headers=KEY)
        log.find("GET /v1/models from")
        assert CANARY in answers
        assert CANARY not in log.text
        assert API_KEY not in log.text


def test_what_a_client_chose_is_cut_and_cannot_forge_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "frontend")
    refused = record()
    refused.fail(NotFound("There is no GET /\n\x1b[2Jforged\u2028" + "x" * 1000))
    log_answer(refused)
    assert caplog.messages[0].startswith(rf"POST {CHAT} from ::1: 404 There is no GET /\n\x1b[2Jforged\u2028xx")
    assert len(caplog.messages[0]) < 300
