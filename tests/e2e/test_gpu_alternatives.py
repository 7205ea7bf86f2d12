"""Alternatives of the GPU engine in a real Triton: the ensemble tensorrt_llm_log_probs and its second step.

The engine is logits_engine.py under the shipped config.pbtxt, so that every logit is known.
"""

import math
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray
from openai import OpenAI

from tests.e2e.conftest import PROMPT, ROOT, SEED_MODEL, Server, events, running, wait_for
from tests.e2e.logits_engine import FAILS_AFTER, STEP_S, logits_of
from tests.e2e.test_tensorrt_llm_config import SHIPPED, parse

LOG_PROBS, TOP_TOKENS = "tensorrt_llm_log_probs", "tensorrt_llm_top_tokens"
MODELS = ROOT / "model_repository"
NUM_TOP = 20
HOUSE: Any = {
    "model": SEED_MODEL,
    "messages": [{"role": "user", "content": "Was ist ein Haus?"}],
    "max_tokens": 6,
    "temperature": 0,
}


def gathering_repository(engine: Path, repository: Path) -> Path:
    """The models of the GPU host; `engine` is any engine's directory, for its tokenizer."""
    model, config = repository / "tensorrt_llm", parse(SHIPPED)
    (model / "1").mkdir(parents=True)
    (model / "1" / "engine").symlink_to(engine)
    shutil.copy(ROOT / "tests" / "e2e" / "logits_engine.py", model / "1" / "model.py")
    config.backend = "python"
    config.parameters["gather_generation_logits"].string_value = "true"
    config.parameters["max_gathered_tokens"].string_value = "100"
    (model / "config.pbtxt").write_text(text_format.MessageToString(config))
    for name in (LOG_PROBS, TOP_TOKENS):
        shutil.copytree(MODELS / name, repository / name, ignore=shutil.ignore_patterns("__pycache__"))
    return repository


@pytest.fixture(scope="module")
def gathering(model_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    engine = (model_repository / "openvino" / "1" / "engine").resolve()
    repository = gathering_repository(engine, tmp_path_factory.mktemp("gathering"))
    with running(repository, tmp_path_factory.mktemp("run"), "--model", "tensorrt_llm") as started:
        yield started


def log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    log_probs: NDArray[np.float64] = wide - np.logaddexp.reduce(wide)
    return log_probs


def stream(server: Server, **inputs: Any) -> Iterator[dict[str, Any]]:
    return events(server, LOG_PROBS, **{"end_id": 2, "return_generation_logits": True, **inputs})


def flat(found: list[dict[str, Any]], name: str) -> list[Any]:
    return [value for event in found for value in np.atleast_1d(event[name]).tolist()]


def test_the_steps_have_the_tensors_of_the_engine() -> None:
    engine, ensemble, step = (parse(MODELS / name / "config.pbtxt") for name in ("tensorrt_llm", LOG_PROBS, TOP_TOKENS))
    for tensor in engine.input:
        tensor.ClearField("reshape")
    left_out = ["return_log_probs", "exclude_input_in_output", "stop"]
    assert list(ensemble.input) == [tensor for tensor in engine.input if tensor.name not in left_out]
    assert sorted(map(str, ensemble.output)) == sorted(map(str, step.output))
    given = {tensor.name: tensor.data_type for tensor in engine.output}
    assert all(given[tensor.name] == tensor.data_type for tensor in step.input)
    first, second = ensemble.ensemble_scheduling.step
    assert (first.model_name, second.model_name) == (engine.name, step.name)
    assert dict(first.input_map) == {tensor.name: tensor.name for tensor in ensemble.input}
    assert {tensor.name for tensor in step.input} == set(first.output_map) == set(second.input_map)
    assert ensemble.max_batch_size == step.max_batch_size == engine.max_batch_size


def test_each_token_has_its_log_probability_rank_and_alternatives(gathering: Server) -> None:
    found = list(stream(gathering, request_output_len=15))
    expected = [log_softmax(logits_of(PROMPT, position)) for position in range(15)]
    assert flat(found, "output_ids") == [int(row.argmax()) for row in expected]
    assert flat(found, "token_ranks") == [1] * 15
    assert flat(found, "token_log_probs") == pytest.approx([row.max() for row in expected], abs=1e-4)
    tops = [np.argsort(-row)[:NUM_TOP] for row in expected]
    assert flat(found, "top_token_ids") == np.concatenate(tops).tolist()
    log_probs = np.concatenate([row[top] for row, top in zip(expected, tops, strict=True)])
    assert flat(found, "top_log_probs") == pytest.approx(log_probs.tolist(), abs=1e-4)
    assert not any("generation_logits" in event for event in found)


def test_many_requests_at_a_time_each_get_their_own(gathering: Server) -> None:
    prompts = [[*PROMPT, number] for number in range(100, 124)]
    with ThreadPoolExecutor(len(prompts)) as threads:
        answers = list(threads.map(lambda ids: list(stream(gathering, input_ids=ids, request_output_len=40)), prompts))
    for prompt, found in zip(prompts, answers, strict=True):
        assert flat(found, "output_ids") == [int(logits_of(prompt, position).argmax()) for position in range(40)]


def test_an_engine_that_fails_ends_the_stream_with_its_error(gathering: Server) -> None:
    *_, last = stream(gathering, input_ids=[*PROMPT, FAILS_AFTER])
    assert "Encountered an error in forwardAsync function" in last["error"]
    assert len(flat(list(stream(gathering, request_output_len=4)), "output_ids")) == 4


def test_a_request_whose_client_is_gone_leaves_the_engine(gathering: Server) -> None:
    """Triton does not cancel the running step of an ensemble: the frontend has the engine stop it.

    The answer takes longer than `wait_for` waits.
    """
    num_tokens = 30_000
    assert num_tokens / 2 * STEP_S > 60
    body = {"model": SEED_MODEL, "prompt": PROMPT, "max_tokens": num_tokens, "logprobs": 2, "stream": True}
    with httpx.stream("POST", f"{gathering.api}/v1/completions", json=body, timeout=60) as response:
        next(response.iter_lines())
        wait_for(lambda: gathering.active() == 1, "the request in the engine")
    wait_for(lambda: gathering.active() == 0, "an engine without requests")


@pytest.mark.parametrize("in_parts", [False, True])
def test_the_openai_client_gets_top_logprobs(gathering: Server, in_parts: bool) -> None:
    client, asked = OpenAI(base_url=f"{gathering.api}/v1", api_key="none"), HOUSE | {"logprobs": True}
    tokens: list[Any] = []
    if in_parts:
        for part in client.chat.completions.create(**asked, top_logprobs=4, stream=True):
            logprobs = part.choices[0].logprobs
            tokens += logprobs.content if logprobs else []
    else:
        tokens = client.chat.completions.create(**asked, top_logprobs=4).choices[0].logprobs.content
    assert len(tokens) == 6
    for token in tokens:
        log_probs = [top.logprob for top in token.top_logprobs]
        assert len(log_probs) == 4
        assert log_probs == sorted(log_probs, reverse=True)
        assert token.logprob == log_probs[0]
        assert sum(map(math.exp, log_probs)) < 1


def completion(server: Server, **more: Any) -> dict[str, Any]:
    body = {"model": SEED_MODEL, "prompt": PROMPT, "max_tokens": 5, "temperature": 0, "logprobs": 2, **more}
    response = httpx.post(f"{server.api}/v1/completions", json=body, timeout=60)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()["choices"][0]
    return found


def test_completions_have_alternatives_to_each_token(gathering: Server) -> None:
    logprobs = completion(gathering)["logprobs"]
    expected = [log_softmax(logits_of(PROMPT, position)) for position in range(5)]
    assert logprobs["token_logprobs"] == pytest.approx([row.max() for row in expected], abs=1e-4)
    assert [len(top) for top in logprobs["top_logprobs"]] == [2] * 5


def test_more_tokens_than_may_be_gathered_at_a_time_are_gathered_in_turn(gathering: Server) -> None:
    """100 are let in at a time: the first request has more and runs alone, of the others two run together."""
    wait_for(lambda: gathering.active() == 0, "an idle engine")
    sizes = [120, *[40] * 6]
    with ThreadPoolExecutor(len(sizes)) as threads:
        asked = [threads.submit(completion, gathering, max_tokens=size) for size in sizes]
        active = [gathering.active()]
        while not all(each.done() for each in asked):
            active.append(gathering.active())
    assert [len(each.result()["logprobs"]["tokens"]) for each in asked] == sizes
    assert max(active) <= 2


def test_what_the_engine_does_not_report_is_refused_by_name(gathering: Server) -> None:
    response = httpx.post(f"{gathering.api}/v1/chat/completions", json=HOUSE | {"prompt_logprobs": 0}, timeout=60)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "prompt_logprobs"
    assert "of the answer's tokens only" in response.json()["error"]["message"]


def test_requests_without_alternatives_do_not_pass_through_it(gathering: Server) -> None:
    def num_requests(model: str) -> int:
        url = f"{gathering.triton}/v2/models/{model}/stats"
        stats = httpx.get(url, headers=gathering.triton_headers).json()
        return int(stats["model_stats"][0]["inference_stats"]["success"]["count"])

    before = num_requests(LOG_PROBS), num_requests("tensorrt_llm")
    assert httpx.post(f"{gathering.api}/v1/chat/completions", json=HOUSE, timeout=60).status_code == 200
    assert (num_requests(LOG_PROBS), num_requests("tensorrt_llm")) == (before[0], before[1] + 1)
