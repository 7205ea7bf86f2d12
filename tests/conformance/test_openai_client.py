"""OpenAI's own client works unchanged, synchronous and asynchronous."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam
from pydantic import BaseModel

from frontend.text.served_model import ServedModel
from tests.conformance.scripted_model import Line, ScriptedModel
from tests.frontend.conftest import API_KEY, MAX_BODY_BYTES, MAX_QUEUE_LENGTH, MODEL, Running
from tests.frontend.fake_triton import Death, Endless, Events, FakeTriton, Refusal, log_prob_of

MESSAGES: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "Antworte kurz."},
    {"role": "user", "content": "Was ist ein Haus?"},
]
EIN, HAUS_ID = 6004, 21209
HAUS = Events([[EIN], [HAUS_ID]], pause_s=0.02)


@pytest.fixture
async def async_client(frontend: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's own asynchronous client."""
    url = f"{frontend.url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def guarded_client(frontend: Running) -> Iterator[openai.OpenAI]:
    """OpenAI's own client of the frontend that requires an API key, with a wrong one."""
    url = f"{frontend.guarded_url}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
        yield client


def text_of(chunks: list[ChatCompletionChunk], index: int = 0) -> str:
    """The text of one choice."""
    deltas = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(deltas)


# ---- chat ----------------------------------------------------------------------------------------------------------


def test_chat_completion(client: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=0)
    assert answer.choices[0].message.content == " Ein Haus"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 2
    assert triton.requests[0]["runtime_top_k"] == 1


def test_chat_completion_stream(client: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    )
    assert text_of(chunks) == " Ein Haus"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 2
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1


def test_stream_helper(client: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    with client.chat.completions.stream(model=MODEL, messages=MESSAGES, logprobs=True) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion().choices[0]
    assert kinds.count("logprobs.content.delta") == 2
    assert kinds.count("content.done") == 1
    assert final.message.content == " Ein Haus"
    assert final.logprobs is not None
    assert [token.token for token in final.logprobs.content or ()] == [" Ein", " Haus"]


async def test_asynchronous_client(async_client: openai.AsyncOpenAI, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    chat = async_client.chat.completions
    answer = await chat.create(model=MODEL, messages=MESSAGES)
    chunks = [chunk async for chunk in await chat.create(model=MODEL, messages=MESSAGES, stream=True)]
    async with chat.stream(model=MODEL, messages=MESSAGES) as stream:
        final = await stream.get_final_completion()
    assert answer.choices[0].message.content == final.choices[0].message.content == text_of(chunks) == " Ein Haus"


def test_n_answers_have_consecutive_seeds(client: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, n=3, seed=7)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {choice.message.content for choice in answer.choices} == {" Ein Haus"}
    assert sorted(request["seed"] for request in triton.requests) == [7, 8, 9]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 6
    assert answer.usage.prompt_tokens == triton.requests[0]["input_lengths"]


def test_n_answers_in_one_stream(client: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    chunks = list(client.chat.completions.create(model=MODEL, messages=MESSAGES, n=2, stream=True))
    assert [text_of(chunks, index) for index in range(2)] == [" Ein Haus"] * 2
    ended = [choice.index for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert sorted(ended) == [0, 1]


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities(client: openai.OpenAI, triton: FakeTriton, stream: bool) -> None:
    triton.script = [HAUS]
    answer: Any = client.chat.completions.create(model=MODEL, messages=MESSAGES, logprobs=True, stream=stream)
    choices = [chunk.choices[0] for chunk in answer] if stream else [answer.choices[0]]
    tokens = [token for choice in choices if choice.logprobs for token in choice.logprobs.content]
    assert [(token.token, token.logprob) for token in tokens] == [
        (" Ein", log_prob_of(EIN)),
        (" Haus", log_prob_of(HAUS_ID)),
    ]
    assert [bytes(token.bytes) for token in tokens] == [b" Ein", b" Haus"]


def test_an_answer_has_the_request_id(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, extra_headers={"x-request-id": "mine"})
    assert answer._request_id == "mine"


def test_ignored_parameters_are_in_a_header_of_the_raw_response(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=MESSAGES, store=True, prompt_cache_key="a"
    )
    assert raw.headers["x-ignored-params"] == "prompt_cache_key, store"
    assert raw.parse().choices[0].finish_reason == "stop"


def test_closing_a_stream_cancels_the_request_to_the_engine(client: openai.OpenAI, frontend: Running) -> None:
    frontend.triton.script = [Endless(EIN)]
    with client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True) as stream:
        next(iter(stream))
    frontend.wait_until(lambda: frontend.triton.num_cancelled == 1)


# ---- structured output and tools -----------------------------------------------------------------------------------


class House(BaseModel):
    """The structured output of the scripted model."""

    rooms: int
    colour: str


class build(BaseModel):  # noqa: N801 - the client takes a function's name from the class
    """Build a house."""

    rooms: int


SCRIPT = [
    Line("Build", function="build", arguments={"rooms": 3}),
    Line("", '{"rooms": 3, "colour": "grün"}'),
]
BUILD: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Build a house."}]


@pytest.fixture
def _scripted(triton: FakeTriton, mixtral: ServedModel) -> None:
    triton.script = ScriptedModel(mixtral.tokenizer, SCRIPT)


@pytest.mark.usefixtures("_scripted")
def test_parse_returns_the_requested_type(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(model=MODEL, messages=MESSAGES, response_format=House)
    assert answer.choices[0].message.parsed == House(rooms=3, colour="grün")


@pytest.mark.usefixtures("_scripted")
def test_stream_helper_returns_the_requested_type(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=MESSAGES, response_format=House) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == House(rooms=3, colour="grün")


@pytest.mark.usefixtures("_scripted")
@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": "build"}}], ids=str)
def test_tool_calls_are_parsed(client: openai.OpenAI, choice: Any) -> None:
    fields: Any = {"model": MODEL, "messages": BUILD, "tool_choice": choice}
    tools = [openai.pydantic_function_tool(build)]
    complete = client.chat.completions.parse(**fields, tools=tools).choices[0]
    with client.chat.completions.stream(**fields, tools=tools) as stream:
        kinds = {event.type for event in stream}
        streamed = stream.get_final_completion().choices[0]
    assert "tool_calls.function.arguments.done" in kinds
    for answer in (complete, streamed):
        assert answer.message.tool_calls is not None
        [call] = answer.message.tool_calls
        assert call.function.parsed_arguments == build(rooms=3)
        assert answer.finish_reason == ("tool_calls" if isinstance(choice, str) else "stop")


# ---- responses -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_scripted")
def test_response_and_its_stream_are_parsed(client: openai.OpenAI) -> None:
    parsed = client.responses.parse(model=MODEL, input="Was ist ein Haus?", text_format=House)
    assert parsed.output_parsed == House(rooms=3, colour="grün")
    with client.responses.stream(model=MODEL, input="Was ist ein Haus?", text_format=House) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert stream.get_final_response().output_parsed == House(rooms=3, colour="grün")
    assert text == parsed.output_text


@pytest.mark.usefixtures("_scripted")
async def test_asynchronous_client_gets_a_response_with_a_tool_call(async_client: openai.AsyncOpenAI) -> None:
    tools: Any = [{"type": "function", "name": "build", "parameters": build.model_json_schema()}]
    answer = await async_client.responses.create(model=MODEL, input="Build a house.", tools=tools)
    [call] = answer.output
    assert call.type == "function_call"
    assert (call.name, call.arguments) == ("build", '{"rooms": 3}')


# ---- completions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["Hallo", ["Hallo"], [1, 28792], [[1, 28792]]], ids=str)
def test_completion(client: openai.OpenAI, triton: FakeTriton, prompt: Any) -> None:
    triton.script = [HAUS]
    answer = client.completions.create(model=MODEL, prompt=prompt, logprobs=0, echo=False)
    [choice] = answer.choices
    assert (choice.text, choice.finish_reason) == (" Ein Haus", "stop")
    assert choice.logprobs is not None
    assert choice.logprobs.tokens == [" Ein", " Haus"]
    assert choice.logprobs.text_offset == [0, 4]


def test_completions_of_several_prompts(client: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    answer = client.completions.create(model=MODEL, prompt=["a", "b"], n=2, echo=True)
    assert [choice.text for choice in answer.choices] == ["a Ein Haus", "a Ein Haus", "b Ein Haus", "b Ein Haus"]


def test_completion_stream(client: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    chunks = list(
        client.completions.create(
            model=MODEL, prompt="Hallo", stream=True, stream_options={"include_usage": True}, max_tokens=2
        )
    )
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == " Ein Haus"
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 2


# ---- models and errors ---------------------------------------------------------------------------------------------


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL, "mixtral"]
    assert client.models.retrieve(MODEL).id == MODEL


def test_an_error_event_in_a_stream_is_raised(client: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [HAUS, Events(["boom"])]
    with pytest.raises(openai.APIError, match="could not complete"):
        list(client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True))


@pytest.mark.parametrize(
    ("fields", "error", "param", "code"),
    [
        ({"model": "gpt-4"}, openai.NotFoundError, "model", "model_not_found"),
        ({"extra_body": {"best_of": 2}}, openai.BadRequestError, "best_of", "unsupported_parameter"),
        ({"temperature": 3}, openai.BadRequestError, "temperature", None),
        ({"max_tokens": 5000}, openai.BadRequestError, "messages", "context_length_exceeded"),
        ({"messages": []}, openai.BadRequestError, "messages", None),
        ({"user": "x" * MAX_BODY_BYTES}, openai.APIStatusError, None, None),
    ],
    ids=["model", "unsupported", "range", "context", "empty", "too large"],
)
def test_invalid_requests_are_raised_as_the_clients_types(
    client: openai.OpenAI, fields: dict[str, Any], error: type[openai.APIStatusError], param: str | None, code: str
) -> None:
    with pytest.raises(error) as raised:
        client.chat.completions.create(**{"model": MODEL, "messages": MESSAGES, **fields})
    assert (raised.value.param, raised.value.code) == (param, code)
    assert raised.value.type == "invalid_request_error"
    assert raised.value.request_id


@pytest.mark.parametrize(
    ("step", "status", "code"),
    [
        (Events(["boom"]), 500, None),
        (Refusal(503, "model is not ready"), 503, "engine_unavailable"),
        (Death(), 503, "engine_unavailable"),
    ],
    ids=str,
)
def test_engine_failures_are_internal_server_errors(
    client: openai.OpenAI, triton: FakeTriton, step: Any, status: int, code: str | None
) -> None:
    triton.script = [step]
    with pytest.raises(openai.InternalServerError) as raised:
        client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert raised.value.status_code == status
    assert raised.value.type == "server_error"
    assert raised.value.code == code


def test_missing_key_is_an_authentication_error(guarded_client: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as raised:
        guarded_client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert raised.value.code == "invalid_api_key"
    assert guarded_client.with_options(api_key=API_KEY).models.list().data


async def test_full_queue_is_a_rate_limit_error(async_client: openai.AsyncOpenAI, frontend: Running) -> None:
    frontend.triton.script = [Endless(EIN)]
    create = async_client.chat.completions.create
    asking = [asyncio.create_task(create(model=MODEL, messages=MESSAGES, stream=True, n=2)) for _ in range(3)]
    await asyncio.to_thread(frontend.wait_until, lambda: frontend.admission.num_waiting == MAX_QUEUE_LENGTH)
    with pytest.raises(openai.RateLimitError) as raised:
        await create(model=MODEL, messages=MESSAGES)
    assert raised.value.code == "rate_limit_exceeded"
    assert raised.value.response.headers["retry-after"] == "1"
    for task in asking:
        task.cancel()
    for answer in await asyncio.gather(*asking, return_exceptions=True):
        if isinstance(answer, openai.AsyncStream):
            await answer.close()
