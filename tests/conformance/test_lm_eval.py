"""lm-eval's requests, as `_create_payload` in its models/openai_completions.py writes them, and the fields it reads.

Its generation tasks work through both routes. Its tasks that compare log probabilities of given answers need those of
the prompt, which neither engine returns: they are refused with the parameter's name, so that no score is wrong.
"""

from typing import Any

import httpx
import pytest

from tests.frontend.conftest import CHAT, MODEL, error_of
from tests.frontend.fake_triton import Events, FakeTriton

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


def test_log_probabilities_of_prompts_are_refused_with_the_parameters_name(
    http: httpx.Client, triton: FakeTriton
) -> None:
    body = {"model": MODEL, "prompt": [[6004, 21209]], "temperature": 0, "max_tokens": 1, "seed": 1234}
    assert error_of(http.post(COMPLETIONS, json={**body, "logprobs": 1, "echo": True}), 400)["param"] == "logprobs"
    assert not triton.requests
