"""Several answers in one reply: each is a generation of its own, and all succeed or none."""

import json
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from frontend.generation import Delta, Ending, Outcome, Usage
from frontend.openai.chat.response import ChatWriter
from frontend.openai.job import Answer
from frontend.openai.reply import Reply
from tests.frontend.conftest import CHAT, MAX_QUEUE_LENGTH, MODEL, Running, body, error_of
from tests.frontend.fake_triton import Endless, Events, FakeTriton

HAUS = Events([[6004], [21209]])


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_n_answers_have_an_index_and_a_seed_each_and_one_usage(client: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    answer = client.chat.completions.create(**body(n=3, seed=2**64 - 2))
    assert [(choice.index, choice.message.content) for choice in answer.choices] == [
        (0, " Ein Haus"), (1, " Ein Haus"), (2, " Ein Haus"),
    ]  # fmt: skip
    assert sorted(request["seed"] for request in triton.requests) == [0, 2**64 - 2, 2**64 - 1]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (9, 6)


def test_n_answers_in_a_stream_have_an_index_each(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    events = events_of(http.post(CHAT, json=body(n=2, stream=True, stream_options={"include_usage": True})))
    texts = {0: "", 1: ""}
    for event in events[:-1]:
        (choice,) = event["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == {0: " Ein Haus", 1: " Ein Haus"}
    assert [event["choices"][0]["delta"].get("role") for event in events[:2]] == ["assistant", "assistant"]
    assert [event["choices"][0]["finish_reason"] for event in events[:-1]].count("stop") == 2
    assert events[-1]["usage"] == {"prompt_tokens": 9, "total_tokens": 13, "completion_tokens": 4}


def test_answers_without_a_slot_wait_for_the_others(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    response = http.post(CHAT, json=body(n=triton.max_batch_size + MAX_QUEUE_LENGTH))
    assert len(response.json()["choices"]) == triton.max_batch_size + MAX_QUEUE_LENGTH
    assert triton.most_running <= triton.max_batch_size


def test_more_answers_than_an_idle_server_could_take_are_a_400(http: httpx.Client, triton: FakeTriton) -> None:
    error = error_of(http.post(CHAT, json=body(n=triton.max_batch_size + MAX_QUEUE_LENGTH + 1)), 400)
    assert error["param"] == "n"
    assert triton.requests == []


@pytest.mark.parametrize("stream", [False, True])
def test_disconnect_cancels_all_answers_of_the_request(frontend: Running, triton: FakeTriton, stream: bool) -> None:
    triton.script = [Endless(6004)]
    address = urlsplit(frontend.url)
    sent = json.dumps(body(n=3, stream=stream))
    with socket.create_connection((address.hostname, address.port or 80)) as connection:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(sent)}"
        connection.sendall(f"{head}\r\n\r\n{sent}".encode())
        frontend.wait_until(lambda: triton.num_running == 3)
    frontend.wait_until(lambda: triton.num_running == 0)
    assert triton.num_cancelled == 3


def test_one_answer_that_fails_ends_the_others(frontend: Running, http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [Events([[6004], "CUDA error"])]
    assert error_of(http.post(CHAT, json=body(n=2)), 500)["type"] == "server_error"
    frontend.wait_until(lambda: frontend.admission.num_running == 0)


def test_answers_are_in_the_order_of_their_prompts(client: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    answer = client.completions.create(model=MODEL, prompt=["a", "b"], n=2, max_tokens=5, echo=True)
    assert [choice.text for choice in answer.choices] == ["a Ein Haus"] * 2 + ["b Ein Haus"] * 2
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (4, 8)


@pytest.mark.parametrize("fingerprint", [None, "fp_0123456789ab"])
def test_the_fingerprint_is_the_last_field_and_absent_by_default(fingerprint: str | None) -> None:
    reply = Reply(id="cmpl-0", created=1, model="m", system_fingerprint=fingerprint)
    writer = ChatWriter(reply, num_choices=1, num_prompt_tokens=1)
    ending = Ending(finish_reason="stop", stop_reason=None)
    outcome = Outcome(ending=ending, usage=Usage(num_prompt_tokens=1, num_completion_tokens=1))
    complete = json.loads(writer.complete([Answer(text="a", tokens=[], outcome=outcome)]))
    chunk = json.loads(writer.delta(0, Delta("a")).removeprefix(b"data: "))
    expected = ["id", "object", "created", "model", "choices", "usage"]
    assert list(complete) == [*expected, "system_fingerprint"][: 6 + bool(fingerprint)]
    assert complete.get("system_fingerprint") == chunk.get("system_fingerprint") == fingerprint
