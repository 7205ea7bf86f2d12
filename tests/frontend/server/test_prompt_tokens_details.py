"""`prompt_tokens_details` in usage, for an operator who turned it on."""

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
def with_details(frontend: Running) -> Iterator[httpx.Client]:
    """A client of the frontend that reports cached tokens; the engine has two cached blocks of 32."""
    frontend.triton.script = [Events([[6004], []])]
    frontend.triton.num_reused_blocks = 2
    with httpx.Client(base_url=frontend.details_url, timeout=60) as client:
        yield client


def test_json_body(with_details: httpx.Client) -> None:
    usage = with_details.post(CHAT, json=body(messages=LONG)).json()["usage"]
    assert list(usage) == ["prompt_tokens", "total_tokens", "completion_tokens", "prompt_tokens_details"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 64}


def test_stream(with_details: httpx.Client) -> None:
    fields: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    *_, last, done = with_details.post(CHAT, json=body(messages=LONG, **fields)).text.strip().split("\n\n")
    assert json.loads(last.removeprefix("data:"))["usage"]["prompt_tokens_details"] == {"cached_tokens": 64}
    assert done == "data: [DONE]"


def test_answers_to_one_prompt_count_it_once_and_several_prompts_add_up(with_details: httpx.Client) -> None:
    prompts = {"model": MODEL, "prompt": [WORDS] * 2, "n": 3}
    usage = with_details.post("/v1/completions", json=prompts).json()["usage"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 128}


def test_responses(with_details: httpx.Client) -> None:
    usage = with_details.post("/v1/responses", json={"model": MODEL, "input": WORDS}).json()["usage"]
    assert usage["input_tokens_details"]["cached_tokens"] == 64


def test_openais_client(frontend: Running, with_details: httpx.Client) -> None:
    with openai.OpenAI(base_url=f"{frontend.details_url}/v1", api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(model=MODEL, messages=LONG)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 64


def test_by_default_the_engine_is_not_asked(http: httpx.Client, triton: FakeTriton) -> None:
    assert "prompt_tokens_details" not in http.post(CHAT, json=body()).json()["usage"]
    assert "return_perf_metrics" not in triton.requests[0]
