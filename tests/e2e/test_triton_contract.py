"""Triton's `openvino` model has the tensors and the streaming behaviour of `tensorrt_llm`, tested over HTTP."""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer

from tests.e2e.conftest import MAX_BATCH_SIZE, MAX_SEQ_LEN, PROMPT, Server, at_least_once, events, frees_its_slot
from tests.reference_mixtral import ReferenceMixtral
from tests.tiny_mixtral import TINY, tiny_tensors


def generate(server: Server, **inputs: Any) -> list[int]:
    responses = list(events(server, **inputs))
    assert not any("error" in response for response in responses), responses
    return [token_id for response in responses for token_id in response["output_ids"]]


def refusal(server: Server, **inputs: Any) -> str:
    (response,) = events(server, **inputs)
    return str(response["error"])


@pytest.fixture(scope="module")
def greedy() -> list[int]:
    """The token ids that the independent forward pass generates from PROMPT."""
    return ReferenceMixtral(TINY, tiny_tensors(TINY)).greedy(PROMPT, 64)


def test_64_greedy_tokens_equal_an_independent_forward(server: Server, greedy: list[int]) -> None:
    assert generate(server, request_output_len=64, end_id=-1) == greedy


def test_streaming_sends_each_token_once_and_never_the_prompt(server: Server, greedy: list[int]) -> None:
    responses = list(events(server, request_output_len=8))
    assert [response["output_ids"] for response in responses] == [[token_id] for token_id in greedy[:8]]
    assert [response["sequence_length"] for response in responses] == [1] * 8


def test_the_end_token_is_not_sent(server: Server, greedy: list[int]) -> None:
    end_id = greedy[5]
    expected = greedy[: greedy.index(end_id)]
    responses = list(events(server, end_id=end_id))
    assert [token_id for response in responses for token_id in response["output_ids"]] == expected
    assert responses[-1]["output_ids"] == []
    assert responses[-1]["sequence_length"] == 0


def test_min_tokens_prevents_the_end_token(server: Server, greedy: list[int]) -> None:
    assert len(generate(server, end_id=greedy[5], min_tokens=12, request_output_len=12)) == 12


def test_without_streaming_there_is_one_response(server: Server, greedy: list[int]) -> None:
    (response,) = events(server, streaming=False)
    assert response["output_ids"] == greedy[:16]
    (response,) = events(server, streaming=False, exclude_input_in_output=False)
    assert response["output_ids"] == PROMPT + greedy[:16]


def test_log_probs_are_cumulative(server: Server) -> None:
    responses = list(events(server, return_log_probs=True, request_output_len=4))
    assert [len(response["output_log_probs"]) for response in responses] == [1, 2, 3, 4]
    last = responses[-1]
    assert last["output_log_probs"][:3] == responses[2]["output_log_probs"]
    assert last["cum_log_probs"] == pytest.approx(sum(last["output_log_probs"]), rel=1e-5)
    assert all(log_prob < 0 for log_prob in last["output_log_probs"])


def test_request_output_len_is_cut_to_the_context(server: Server) -> None:
    prompt = (PROMPT * 40)[: MAX_SEQ_LEN - 6]
    assert len(generate(server, input_ids=prompt, request_output_len=1000)) == 6


def test_without_top_k_and_top_p_it_is_greedy(server: Server, greedy: list[int]) -> None:
    assert generate(server, temperature=5.0, seed=3) == greedy[:16]
    assert generate(server, temperature=5.0, runtime_top_p=0.9, runtime_top_k=1) == greedy[:16]


def test_min_p_leaves_likely_tokens_only(server: Server, greedy: list[int]) -> None:
    sampling = {"temperature": 1.5, "runtime_top_p": 1.0, "seed": 11}
    assert generate(server, runtime_min_p=1.0, **sampling) == greedy[:16]
    assert generate(server, runtime_min_p=0.0, **sampling) == generate(server, **sampling) != greedy[:16]


def test_a_seed_fixes_what_is_sampled(server: Server, greedy: list[int]) -> None:
    sampling = {"temperature": 1.5, "runtime_top_p": 1.0}
    first = generate(server, seed=11, **sampling)
    assert generate(server, seed=11, **sampling) == first
    assert generate(server, seed=12, **sampling) != first
    assert generate(server, **sampling) == generate(server, seed=0, **sampling)


@pytest.mark.parametrize(
    "bonus", [{"repetition_penalty": 0.01}, {"presence_penalty": -2.0}, {"frequency_penalty": -2.0}]
)
def test_penalties_change_the_answer(server: Server, greedy: list[int], bonus: dict[str, float]) -> None:
    """These values reward repetition: an answer without any becomes one with many."""
    assert len(set(greedy)) == 64
    rewarded = generate(server, request_output_len=64, **bonus)
    assert len(set(rewarded)) < 32


def test_perf_metrics_are_in_order_of_time(server: Server) -> None:
    last = list(events(server, return_perf_metrics=True, request_output_len=3))[-1]
    names = ("arrival_time_ns", "first_scheduled_time_ns", "first_token_time_ns", "last_token_time_ns")
    times = [last[name] for name in names]
    assert times == sorted(times)
    assert times[0] > 0


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": [], "input_lengths": 0}, "input_ids is empty; accepted: at least one token"),
        ({"input_ids": [1, 32000]}, "input_ids holds 1 to 32000; accepted: 0 to 31999"),
        ({"input_ids": [1, -4]}, "input_ids holds -4 to 1; accepted: 0 to 31999"),
        ({"input_ids": [5] * 512}, "Prompt length (512) exceeds maximum input length (511)"),
        ({"input_lengths": 3}, "input_lengths is 3; accepted: 13"),
        ({"request_output_len": 0}, "request_output_len is 0; accepted: at least 1"),
        ({"end_id": 32000}, "end_id is 32000; accepted: -1 to 31999"),
        ({"temperature": -1.0}, "temperature is -1.0; accepted: at least 0.0"),
        ({"runtime_min_p": -0.5}, "runtime_min_p is -0.5; accepted: at least 0.0"),
        ({"repetition_penalty": 0.0}, "'repetition_penalty' must be a strictly positive float"),
        ({"guided_decoding_guide_type": "xml"}, "accepted: json, json_schema, regex, ebnf_grammar"),
        ({"guided_decoding_guide_type": "regex"}, "guided_decoding_guide is missing; accepted: a regex"),
        (
            {"guided_decoding_guide_type": "json_schema", "guided_decoding_guide": '{"type": 3'},
            "guided_decoding_guide does not compile: Check failed",
        ),
        (
            {"guided_decoding_guide_type": "regex", "guided_decoding_guide": "a("},
            "The parenthesis is not closed",
        ),
        (
            {"guided_decoding_guide_type": "ebnf_grammar", "guided_decoding_guide": "root ::= nothing"},
            'Rule "nothing" is not defined',
        ),
    ],
)
def test_an_invalid_request_gets_its_error_and_does_not_change_a_concurrent_answer(
    server: Server, greedy: list[int], inputs: dict[str, Any], message: str
) -> None:
    concurrent = events(server, request_output_len=64, end_id=-1)
    token_ids = list(next(concurrent)["output_ids"])
    assert message in refusal(server, **inputs)
    token_ids += [token_id for response in concurrent for token_id in response["output_ids"]]
    assert token_ids == greedy


def test_the_answer_matches_the_regex_of_the_request(server: Server, mixtral_tokenizer_dir: Any) -> None:
    token_ids = generate(
        server, guided_decoding_guide_type="regex", guided_decoding_guide="[0-9]{3}-[a-f]{2}", end_id=2
    )
    tokenizer = Tokenizer.from_file(str(mixtral_tokenizer_dir / "tokenizer.json"))
    assert re.fullmatch("[0-9]{3}-[a-f]{2}", tokenizer.decode(token_ids).strip())


def test_embedding_bias_is_not_declared(server: Server) -> None:
    config = httpx.get(f"{server.triton}/v2/models/openvino/config", headers=server.triton_headers).json()
    assert config["max_batch_size"] == MAX_BATCH_SIZE
    assert "embedding_bias" not in {tensor["name"] for tensor in config["input"]}


def test_a_late_request_joins_the_running_batch(server: Server) -> None:
    """By the engine's clock, because a client may read a response long after it was sent."""
    long = events(server, request_output_len=400, end_id=-1, return_perf_metrics=True)
    next(long)
    late = list(events(server, request_output_len=4, return_perf_metrics=True))[-1]
    *_, last = long
    assert (
        late["last_token_time_ns"] - late["arrival_time_ns"] < last["last_token_time_ns"] - late["last_token_time_ns"]
    )


def test_a_client_that_disconnects_frees_its_slot(server: Server) -> None:
    @contextmanager
    def client() -> Iterator[None]:
        response = events(server, request_output_len=480, end_id=-1)
        next(response)
        yield
        response.close()

    assert at_least_once(lambda: frees_its_slot(server, client, "openvino")), "the engine went on to the end"


def test_more_requests_than_slots_all_finish(server: Server, greedy: list[int]) -> None:
    answers: list[list[int]] = []
    threads = [threading.Thread(target=lambda: answers.append(generate(server))) for _ in range(3 * MAX_BATCH_SIZE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [greedy[:16]] * (3 * MAX_BATCH_SIZE)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/openvino/unload"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/systemsharedmemory/region/x/register"),
        ("GET", "/v2/trace/setting"),
        ("POST", "/v2/logging"),
    ],
)
def test_admin_apis_are_closed(server: Server, method: str, path: str) -> None:
    for headers in ({}, {"closed": ""}, {"closed": "\\n"}, server.triton_headers):
        assert httpx.request(method, server.triton + path, headers=headers).status_code == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/models/openvino/generate_stream"),
        ("POST", "/v2/models/openvino/generate"),
        ("POST", "/v2/models/openvino/infer"),
        ("POST", "/v2/models/openvino/versions/1/infer"),
        ("GET", "/v2/models/openvino/config"),
        ("GET", "/v2/models/openvino"),
        ("GET", "/v2/models/openvino/stats"),
        ("GET", "/v2"),
    ],
)
def test_without_the_key_of_this_start_triton_only_says_whether_it_is_ready(
    server: Server, method: str, path: str
) -> None:
    for headers in ({}, {"triton-key": ""}, {"triton-key": "0" * 64}):
        assert httpx.request(method, server.triton + path, headers=headers).status_code == 403
    assert httpx.get(f"{server.triton}/v2/models/openvino/ready").status_code == 200


MILLION_CHUNKS = b"1\r\nA\r\n" * 1_000_000 + b"0\r\n\r\n"
"""Triton before 2.59 keeps a pointer to each chunk on its stack, and crashes (CVE-2025-23310)."""


def test_a_body_that_crashes_triton_is_refused_before_it_is_parsed(server: Server) -> None:
    path = "/v2/models/openvino/generate_stream"
    port = httpx.URL(server.triton).port
    assert port
    with socket.create_connection(("127.0.0.1", port), timeout=30) as attacker:
        attacker.sendall(f"POST {path} HTTP/1.1\r\nHost: triton\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        attacker.sendall(MILLION_CHUNKS)
        assert attacker.recv(100).startswith(b"HTTP/1.1 403 ")
    nested = b'{"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    assert httpx.post(server.triton + path, content=nested).status_code == 403
    assert httpx.get(f"{server.triton}/v2/models/openvino/ready").status_code == 200
