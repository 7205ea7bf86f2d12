"""Requests that do not fit the KV cache, alone or together, on a server whose cache holds less than the context.

A request is as long as the cache at most. What fits alone is completed beside others, with the same tokens.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.conftest import MAX_SEQ_LEN, PROMPT, SEED_MODEL, Server, events, running, wait_for
from tests.e2e.test_batcher import run_in_model
from tests.e2e.test_triton_contract import generate, refusal

NUM_BLOCKS = 12
CACHE_TOKENS = 32 * NUM_BLOCKS
BYTES_PER_BLOCK = 32 * 512
KV_BLOCKS = "nv_trt_llm_kv_cache_block_metrics"
AT_ONCE = """
import json, sys, threading
from pathlib import Path

import numpy as np
from batcher import Batcher
from generation import EngineLimits, decode_request
from kv_room import KvRoom
from settings import EngineSettings, open_pipeline

engine_dir, batches = Path(sys.argv[1]), json.loads(sys.argv[2])
limits = EngineLimits(max_seq_len=384, vocab_size=32000, exclude_input_in_output=True)
room = KvRoom(num_blocks=12, max_batch_size=8)
pipeline = open_pipeline(EngineSettings(
    engine_dir=engine_dir, kv_room=room, max_num_tokens=256, precision="f32", limits=limits,
))
ends, complete = [], threading.Event()

class Client:
    def is_cancelled(self):
        return False

    def send(self, request, progress, final):
        if final:
            ends.append(len(progress.token_ids))

    def fail(self, message):
        ends.append(message)

def submit_next_batch(num_requests):
    if num_requests == 0 and not batches:
        complete.set()
    elif num_requests == 0:
        for prompt, num_tokens in batches.pop(0):
            inputs = {"input_ids": np.array([prompt], np.int32), "input_lengths": np.array([len(prompt)])}
            engine.submit(decode_request(inputs | {"request_output_len": np.array([num_tokens])}, limits), Client())

engine = Batcher(pipeline, room, submit_next_batch)
submit_next_batch(0)
complete.wait()
engine.close()
print(json.dumps(ends))
"""

READ_SETTINGS = """
import json, sys
from settings import InvalidSettings, read_settings

parameters = {"kv_cache_bytes": sys.argv[2], "max_num_tokens": "256", "max_seq_len": "512"}
parameters |= {"precision": "f32", "exclude_input_in_output": "true"}
config = {"max_batch_size": 8, "parameters": {key: {"string_value": value} for key, value in parameters.items()}}
try:
    read = read_settings({"model_repository": sys.argv[1], "model_version": "1", "model_config": json.dumps(config)})
    print(read.limits.max_seq_len)
except InvalidSettings as error:
    print(error)
"""

REGEX = {"guided_decoding_guide_type": "regex", "guided_decoding_guide": "([0-9]{2}-[a-f]{3};){20}", "end_id": 2}


@pytest.fixture(scope="module")
def small(model_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a KV cache of 12 blocks."""
    repository = tmp_path_factory.mktemp("small_cache")
    shutil.copytree(model_repository, repository, dirs_exist_ok=True, copy_function=os.link)
    config = repository / "openvino" / "config.pbtxt"
    text = config.read_text()
    config.unlink()  # a link to the file of the other server
    config.write_text(text.replace('"67108864"', f'"{NUM_BLOCKS * BYTES_PER_BLOCK}"'))
    with running(repository, tmp_path_factory.mktemp("run")) as started:
        yield started


@pytest.fixture
def client(small: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{small.api}/v1", api_key="none", max_retries=0)


def prompt(number: int, length: int) -> list[int]:
    """Different prompts, so that no request takes another's blocks."""
    return [1000 + number, *(PROMPT * 40)[: length - 1]]


def together(small: Server, requests: Sequence[dict[str, Any]]) -> list[list[int]]:
    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(lambda inputs: generate(small, **inputs), requests))


def test_the_cache_is_smaller_than_the_context(small: Server) -> None:
    assert small.gauge(KV_BLOCKS, "max") * small.gauge(KV_BLOCKS, "tokens_per") == CACHE_TOKENS < MAX_SEQ_LEN
    (model,) = httpx.get(f"{small.api}/v1/models").json()["data"]
    assert model["max_model_len"] == CACHE_TOKENS
    assert f"the engine's KV cache holds {CACHE_TOKENS} tokens" in small.output()


@pytest.mark.parametrize(
    ("kv_cache_bytes", "expected"),
    [
        (17 * BYTES_PER_BLOCK, "512"),
        (12 * BYTES_PER_BLOCK, "384"),
        (16383, "kv_cache_bytes is 16383; accepted: 16384 and more"),
    ],
)
def test_the_engines_context_fits_its_cache(model_repository: Path, kv_cache_bytes: int, expected: str) -> None:
    read = run_in_model(READ_SETTINGS, str(model_repository / "openvino"), str(kv_cache_bytes))
    assert read.stdout.decode().strip() == expected


@pytest.mark.parametrize(("prompt_tokens", "max_tokens"), [(CACHE_TOKENS, 1), (CACHE_TOKENS - 9, 10)])
def test_what_can_never_fit_is_refused_with_the_numbers(
    client: openai.OpenAI, prompt_tokens: int, max_tokens: int
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model=SEED_MODEL, prompt=prompt(0, prompt_tokens), max_tokens=max_tokens)
    assert refused.value.code == "context_length_exceeded"
    for number in (CACHE_TOKENS, prompt_tokens, max_tokens, prompt_tokens + max_tokens):
        assert str(number) in refused.value.message


def test_the_engine_refuses_by_itself_a_prompt_that_can_never_fit(small: Server) -> None:
    message = f"Prompt length ({CACHE_TOKENS}) exceeds maximum input length ({CACHE_TOKENS - 1})"
    assert refusal(small, input_ids=prompt(0, CACHE_TOKENS)) == message


def test_an_answer_ends_with_length_where_the_cache_ends(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=SEED_MODEL, messages=[{"role": "user", "content": "Hi"}], temperature=0, extra_body={"ignore_eos": True}
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.total_tokens == CACHE_TOKENS


def test_a_request_may_fill_the_cache(small: Server) -> None:
    assert len(generate(small, input_ids=prompt(0, CACHE_TOKENS - 40), request_output_len=40, end_id=-1)) == 40


def test_requests_that_outgrow_the_cache_together_answer_as_they_do_alone(small: Server) -> None:
    requests: list[dict[str, Any]] = [
        {"input_ids": prompt(number, 60), "request_output_len": 250, "end_id": -1} for number in range(4)
    ]
    requests += [{**request, **REGEX} for request in requests[:2]]
    requests += [{**requests[2], "repetition_penalty": 0.5}, {**requests[3], "end_id": 2, "min_tokens": 200}]
    alone = [generate(small, **request) for request in requests]
    assert together(small, requests) == alone


def test_cancelled_requests_do_not_change_the_others(small: Server) -> None:
    requests = [{"input_ids": prompt(number, 60), "request_output_len": 250, "end_id": -1} for number in range(4)]
    alone = [generate(small, **request) for request in requests]
    with ThreadPoolExecutor(len(requests)) as pool:
        answers = [pool.submit(generate, small, **request) for request in requests]
        for number in range(10, 16):
            leaving = events(small, input_ids=prompt(number, 60), request_output_len=250, end_id=-1)
            next(leaving)
            leaving.close()
        assert [answer.result() for answer in answers] == alone


CONVERSATIONS = [
    [(prompt(0, 190), 2), (prompt(1, 190), 2)],
    [(prompt(0, 300), 20), (prompt(1, 300), 20)],
]
"""Two that are in the cache and come back longer: each holds its beginning, and neither finds room for the rest."""
ONE_PROMPT = [[(prompt(0, 100), 200)], [(prompt(0, 100), 200)] * 4]
"""All share their beginning: taking blocks from the youngest frees none."""


@pytest.mark.parametrize(
    ("batches", "num_tokens"),
    [(CONVERSATIONS, [2, 2, 20, 20]), (ONE_PROMPT, [200] * 5)],
    ids=["conversations", "one prompt"],
)
def test_what_arrives_before_the_same_step_is_completed(
    model_repository: Path, batches: list[Any], num_tokens: list[int]
) -> None:
    """GenAI by itself ends all requests of both cases."""
    engine_dir = model_repository / "openvino" / "1" / "engine"
    assert json.loads(run_in_model(AT_ONCE, str(engine_dir), json.dumps(batches)).stdout) == num_tokens


def test_a_request_starts_in_the_room_of_one_that_was_cancelled(small: Server) -> None:
    """Both need all of the cache."""
    fill: list[dict[str, Any]] = [
        {"input_ids": prompt(number, 20), "request_output_len": CACHE_TOKENS - 20, "end_id": -1} for number in (0, 1)
    ]
    alone = generate(small, **fill[1])
    with ThreadPoolExecutor(1) as pool:
        for _ in range(5):
            leaving = events(small, **fill[0])
            next(leaving)
            answer = pool.submit(generate, small, **fill[1])
            leaving.close()
            assert answer.result() == alone


def test_all_of_n_are_complete(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=SEED_MODEL, prompt=prompt(0, 100), max_tokens=200, n=4, extra_body={"ignore_eos": True}
    )
    assert [choice.finish_reason for choice in answer.choices] == ["length"] * 4
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4 * 200


def test_no_block_is_used_when_all_requests_have_ended(small: Server) -> None:
    together(small, [{"input_ids": prompt(number, 60), "request_output_len": 100} for number in range(6)])
    wait_for(lambda: small.active() == 0, "an idle server")
    wait_for(lambda: small.gauge(KV_BLOCKS, "used") == 0, "an empty cache")
    assert small.gauge(KV_BLOCKS, "free") == NUM_BLOCKS
    assert small.gauge(KV_BLOCKS, "fraction") == 0
    assert "vllm:gpu_cache_usage_perc" in (metrics := httpx.get(f"{small.api}/metrics").text)
    assert [line.split()[-1] for line in metrics.splitlines() if line.startswith("vllm:gpu_cache_usage_perc")] == [
        "0.0"
    ]
