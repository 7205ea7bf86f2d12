"""lm-eval's requests, as `_create_payload` in its models/openai_completions.py writes them, and the fields it reads.

Its generation tasks work through both routes, and its tasks that compare log probabilities of given answers through
completions, with an engine that reports those of the prompt.
"""

from typing import Any

import httpx
import pytest

from tests.frontend.conftest import CHAT, MODEL
from tests.frontend.fake_triton import Events, FakeTriton, log_prob_of

COMPLETIONS = "/v1/completions"
GENERATE: dict[str, Any] = {"model": MODEL, "max_tokens": 256, "temperature": 0, "seed": 1234}


@pytest.fixture(autouse=True)
def answers(triton: FakeTriton) -> None:
    """The engine answers every prompt with " Ein Haus. Ein"."""
    triton.script = [Events([[6004], [21209], [28723], [6004], []])]


def test_chat_completions_stop_before_the_stop_string(http: httpx.Client) -> None:
    body = {**GENERATE, "messages": [{"role": "user", "content": "Was ist ein Haus?"}], "stop": ["\n\n", "."]}
    choices = http.post(CHAT, json=body).json()["choices"]
    assert [(choice["index"], choice["message"]["content"]) for choice in choices] == [(0, " Ein Haus")]


@pytest.mark.parametrize("prompt", [["Ein", "Das ist ein"], [[6004], [6004, 21209]]], ids=["texts", "token ids"])
def test_completions_answer_a_batch_of_prompts_by_index(http: httpx.Client, prompt: list[Any]) -> None:
    body = {**GENERATE, "prompt": prompt, "stop": ["</s>", "."]}
    choices = http.post(COMPLETIONS, json=body).json()["choices"]
    assert [(choice["index"], choice["text"]) for choice in choices] == [(0, " Ein Haus"), (1, " Ein Haus")]


def parse_logprobs(answer: dict[str, Any], context_lengths: list[int]) -> list[tuple[float, bool]]:
    """What lm-eval 0.4 makes of an answer (LocalCompletionsAPI.parse_logprobs): the sum of the log probabilities of a
    continuation, and whether it is what greedy decoding would write.
    """
    found = []
    for choice, length in zip(
        sorted(answer["choices"], key=lambda choice: choice["index"]), context_lengths, strict=True
    ):
        log_probs = choice["logprobs"]["token_logprobs"][length:-1]
        tops = choice["logprobs"]["top_logprobs"][length:-1]
        is_greedy = all(log_prob == max(top.values()) for log_prob, top in zip(log_probs, tops, strict=True))
        found.append((sum(log_probs), is_greedy))
    return found


def test_log_likelihoods_of_continuations_and_whether_they_are_greedy(http: httpx.Client, triton: FakeTriton) -> None:
    """The fake engine gives tokens whose id is divisible by three rank 1."""
    triton.script = [Events([[6004], []])]
    prompts = [[1, 21209, 6003, 9], [1, 6004, 21209]]
    payload = {"model": MODEL, "prompt": prompts, "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234}
    answer = http.post(COMPLETIONS, json={**payload, "echo": True}).json()
    assert parse_logprobs(answer, [2, 1]) == [
        (log_prob_of(6003) + log_prob_of(9) - 2, True),
        (log_prob_of(6004) + log_prob_of(21209) - 2, False),
    ]
