"""LiteLLM's generic OpenAI provider works against this server, as it is used in LiteLLM's proxy."""

import json
import os
from typing import Any

import openai
import pytest

from frontend.text.served_model import ServedModel
from tests.conformance.scripted_model import Line, ScriptedModel
from tests.frontend.conftest import MODEL, Running
from tests.frontend.fake_triton import Events, FakeTriton, Refusal, log_prob_of

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # otherwise importing LiteLLM downloads the map

import litellm

pytestmark = pytest.mark.filterwarnings(
    "ignore:Accessing the 'model_:DeprecationWarning"
)  # LiteLLM does so for each chunk

HAUS = Events([[6004], [21209]])
MESSAGES = [{"role": "user", "content": "Was ist ein Haus?"}]


@pytest.fixture
def options(frontend: Running, client: openai.OpenAI) -> dict[str, Any]:
    """The address of this server, and a client that is closed after the test: LiteLLM leaves its own open."""
    frontend.triton.script = [HAUS]
    return {"api_base": f"{frontend.url}/v1", "api_key": "none", "max_retries": 0, "timeout": 60, "client": client}


def test_chat_completion(options: dict[str, Any]) -> None:
    answer = litellm.completion(model=f"openai/{MODEL}", messages=MESSAGES, **options)
    assert answer.choices[0].message.content == " Ein Haus"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == 2


def test_chat_completion_stream_with_usage(options: dict[str, Any]) -> None:
    chunks = list(
        litellm.completion(
            model="openai/mixtral",
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
            **options,
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == " Ein Haus"
    built = litellm.stream_chunk_builder(chunks)
    assert built is not None
    assert built.usage.completion_tokens == 2  # type: ignore[union-attr]


async def test_asynchronous_chat_completion_and_stream(options: dict[str, Any]) -> None:
    async with openai.AsyncOpenAI(base_url=options["api_base"], api_key="none", max_retries=0) as client:
        options |= {"client": client}
        answer = await litellm.acompletion(model="openai/mixtral", messages=MESSAGES, **options)
        stream = await litellm.acompletion(model="openai/mixtral", messages=MESSAGES, stream=True, **options)
        texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert answer.choices[0].message.content == "".join(texts) == " Ein Haus"


def test_parameters_reach_the_engine(options: dict[str, Any], triton: FakeTriton) -> None:
    answer = litellm.completion(
        model="openai/mixtral",
        messages=MESSAGES,
        n=2,
        seed=3,
        temperature=0.5,
        top_p=0.9,
        stop=["\n"],
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        logit_bias={"5": 2},
        logprobs=True,
        user="me",
        extra_body={"top_k": 5},
        **options,
    )
    assert [choice.message.content for choice in answer.choices] == [" Ein Haus"] * 2
    assert answer.choices[0].logprobs["content"][0]["logprob"] == log_prob_of(6004)
    sent = triton.requests[0]
    assert (sent["runtime_top_k"], sent["runtime_top_p"], sent["temperature"]) == (5, 0.9, 0.5)
    assert (sent["presence_penalty"], sent["frequency_penalty"]) == (0.5, -0.5)
    assert sent["embedding_bias"][5] == 2


def test_tool_calls_and_structured_output(options: dict[str, Any], triton: FakeTriton, mixtral: ServedModel) -> None:
    script = [Line("Build", function="build", arguments={"rooms": 3}), Line("", '{"rooms": 3}')]
    triton.script = ScriptedModel(mixtral.tokenizer, script)
    schema = {"type": "object", "properties": {"rooms": {"type": "integer"}}}
    tool = {"type": "function", "function": {"name": "build", "parameters": schema}}
    build = [{"role": "user", "content": "Build a house."}]
    for stream in (False, True):
        answer = litellm.completion(
            model="openai/mixtral", messages=build, tools=[tool], tool_choice="required", stream=stream, **options
        )
        complete = litellm.stream_chunk_builder(list(answer)) if stream else answer
        [call] = complete.choices[0].message.tool_calls  # type: ignore[misc, union-attr]
        assert (call.function.name, json.loads(call.function.arguments)) == ("build", {"rooms": 3})
        assert complete.choices[0].finish_reason == "tool_calls"  # type: ignore[union-attr]
    response_format = {"type": "json_schema", "json_schema": {"name": "house", "schema": schema}}
    answer = litellm.completion(model="openai/mixtral", messages=MESSAGES, response_format=response_format, **options)
    assert json.loads(answer.choices[0].message.content) == {"rooms": 3}


def test_text_completion(options: dict[str, Any]) -> None:
    answer = litellm.text_completion(model="text-completion-openai/mixtral", prompt="Hallo", **options)
    assert answer.choices[0].text == " Ein Haus"


def test_errors_are_raised_as_litellms_types(options: dict[str, Any], triton: FakeTriton) -> None:
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(model="openai/gpt-4", messages=MESSAGES, **options)
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(model="openai/mixtral", messages=MESSAGES, max_tokens=5000, **options)
    with pytest.raises(litellm.BadRequestError, match="temperature"):
        litellm.completion(model="openai/mixtral", messages=MESSAGES, temperature=3, **options)
    triton.script = [Refusal(503, "model is not ready")]
    with pytest.raises(litellm.ServiceUnavailableError):
        litellm.completion(model="openai/mixtral", messages=MESSAGES, **options)


@pytest.mark.filterwarnings("ignore")  # LiteLLM leaves its own client open
async def test_the_bridge_from_anthropics_messages_reasons_no_more_than_the_model(frontend: Running) -> None:
    """It speaks /v1/responses, and asks for `reasoning` and for `reasoning.encrypted_content`."""
    frontend.triton.script = [HAUS]
    answer: Any = await litellm.anthropic.messages.acreate(
        model="openai/mixtral",
        max_tokens=50,
        messages=MESSAGES,
        thinking={"type": "enabled", "budget_tokens": 1024},
        api_base=f"{frontend.url}/v1",
        api_key="none",
    )
    assert [block["text"] for block in answer["content"] if block["type"] == "text"] == [" Ein Haus"]
