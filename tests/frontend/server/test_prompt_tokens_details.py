"""How much of the prompt was cached, where the operator wants it told."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.frontend.conftest import CHAT, MODEL, Running, body
from tests.frontend.fake_triton import Events, FakeTriton

WORDS = "house " * 100
LONG: list[ChatCompletionMessageParam] = [{"role": "user", "content": WORDS}]


@pytest.fixture
def telling(frontend: Running) -> Iterator[httpx.Client]:
    """A client of the frontend that tells; the engine found two blocks of 32 tokens."""
    frontend.triton.script = [Events([[6004], []])]
    frontend.triton.num_reused_blocks = 2
    with httpx.Client(base_url=frontend.telling_url, timeout=10) as client:
        yield client


def test_whole_answer(telling: httpx.Client) -> None:
    usage = telling.post(CHAT, json=body(messages=LONG)).json()["usage"]
    assert list(usage) == ["prompt_tokens", "total_tokens", "completion_tokens", "prompt_tokens_details"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 64}


def test_stream(telling: httpx.Client) -> None:
    wishes: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    *_, last, done = telling.post(CHAT, json=body(messages=LONG, **wishes)).text.strip().split("\n\n")
    assert json.loads(last.removeprefix("data:"))["usage"]["prompt_tokens_details"] == {"cached_tokens": 64}
    assert done == "data: [DONE]"


def test_answers_to_one_prompt_count_it_once_and_several_prompts_add_up(telling: httpx.Client) -> None:
    prompts = {"model": MODEL, "prompt": [WORDS] * 2, "n": 3}
    usage = telling.post("/v1/completions", json=prompts).json()["usage"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 128}


def test_responses(telling: httpx.Client) -> None:
    usage = telling.post("/v1/responses", json={"model": MODEL, "input": WORDS}).json()["usage"]
    assert usage["input_tokens_details"]["cached_tokens"] == 64


def test_openais_client(frontend: Running, telling: httpx.Client) -> None:
    with openai.OpenAI(base_url=f"{frontend.telling_url}/v1", api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(model=MODEL, messages=LONG)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 64


def test_elsewhere_the_engine_is_not_asked(http: httpx.Client, triton: FakeTriton) -> None:
    assert "prompt_tokens_details" not in http.post(CHAT, json=body()).json()["usage"]
    assert "return_perf_metrics" not in triton.requests[0]
