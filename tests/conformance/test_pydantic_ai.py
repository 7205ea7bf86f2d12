"""Agents of pydantic-ai work against this server as against OpenAI: text, tools, structured output, streams, errors."""

from collections.abc import AsyncIterator

import openai
import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, ModelRetry, NativeOutput, PromptedOutput, ToolOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ToolCallPart, ToolReturnPart
from pydantic_ai.models import Model
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIChatModelSettings, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from frontend.text.served_model import ServedModel
from tests.conformance.scripted_model import Line, ScriptedModel
from tests.frontend.conftest import MODEL, Running
from tests.frontend.fake_triton import Events, FakeTriton, Refusal

HAUS = Events([[6004], [21209]])


class House(BaseModel):
    """What is asked for."""

    rooms: int
    colour: str


GREEN = {"rooms": 3, "colour": "grün"}


TEMPERATURE = (Line("17 degrees", "mild"), Line("", function="temperature", arguments={"city": "Köln"}))
"""The engine calls the tool, and answers when the prompt has its result."""


def agent_with_temperature(model: Model) -> Agent[None, str]:
    def temperature(city: str) -> str:
        return f"17 degrees in {city}"

    return Agent(model, deps_type=type(None), tools=[temperature])


@pytest.fixture
async def provider(frontend: Running) -> AsyncIterator[OpenAIProvider]:
    async with openai.AsyncOpenAI(base_url=f"{frontend.url}/v1", api_key="none", max_retries=0) as client:
        yield OpenAIProvider(openai_client=client)


@pytest.fixture
def model(provider: OpenAIProvider) -> OpenAIChatModel:
    return OpenAIChatModel(MODEL, provider=provider)


@pytest.fixture
def play(triton: FakeTriton, mixtral: ServedModel) -> "Play":
    return Play(triton, mixtral)


class Play:
    """Gives the engine its lines. The first whose cue is in the prompt counts."""

    def __init__(self, triton: FakeTriton, mixtral: ServedModel) -> None:
        self.triton, self.mixtral = triton, mixtral

    def __call__(self, *lines: Line) -> None:
        self.triton.script = ScriptedModel(self.mixtral.tokenizer, lines)

    @property
    def prompts(self) -> list[str]:
        """All that the engine was asked."""
        return [self.mixtral.tokenizer.decode(request["input_ids"]) for request in self.triton.requests]


async def test_text_and_usage(model: OpenAIChatModel, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    answer = await Agent(model).run("Was ist das?")
    assert answer.output == " Ein Haus"
    assert answer.usage.output_tokens == 2
    assert answer.usage.input_tokens == len(triton.requests[0]["input_ids"])


async def test_streamed_text(model: OpenAIChatModel, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    async with Agent(model).run_stream("Was ist das?") as answer:
        pieces = [piece async for piece in answer.stream_text(delta=True, debounce_by=None)]
    assert pieces == [" Ein", " Haus"]
    assert answer.usage.output_tokens == 2


async def test_instructions_and_the_messages_before(model: OpenAIChatModel, play: Play) -> None:
    play(Line("And a river?", "wet"), Line("A house?", "dry"))
    agent = Agent(model, instructions="Answer in one word.")
    first = await agent.run("A house?")
    second = await agent.run("And a river?", message_history=first.all_messages())
    assert (first.output, second.output) == ("dry", "wet")
    assert all("Answer in one word." in prompt for prompt in play.prompts)
    question, answer, follow_up = (play.prompts[1].index(text) for text in ("A house?", "dry", "And a river?"))
    assert question < answer < follow_up


async def test_a_tool_is_called_and_its_result_is_used(model: OpenAIChatModel, play: Play) -> None:
    play(*TEMPERATURE)
    answer = await agent_with_temperature(model).run("How warm is it?")
    assert answer.output == "mild"
    [call] = [part for message in answer.all_messages() for part in message.parts if isinstance(part, ToolCallPart)]
    [result] = [part for message in answer.all_messages() for part in message.parts if isinstance(part, ToolReturnPart)]
    assert call.args_as_dict() == {"city": "Köln"}
    assert result.content == "17 degrees in Köln"
    assert result.tool_call_id == call.tool_call_id


async def test_a_tool_asks_for_another_try(model: OpenAIChatModel, play: Play) -> None:
    play(
        Line("12 degrees", "cool"),
        Line("no such city", function="temperature", arguments={"city": "Bonn"}),
        Line("", function="temperature", arguments={"city": "Atlantis"}),
    )
    cities = []
    agent = Agent(model)

    @agent.tool_plain(retries=1)
    def temperature(city: str) -> str:
        cities.append(city)
        if city == "Atlantis":
            raise ModelRetry("no such city")
        return "12 degrees"

    answer = await agent.run("How warm is it?")
    assert answer.output == "cool"
    assert cities == ["Atlantis", "Bonn"]


@pytest.mark.parametrize("form", [ToolOutput, NativeOutput, PromptedOutput])
async def test_structured_output(model: OpenAIChatModel, play: Play, form: type) -> None:
    """By a tool that must be called, by `response_format`, and by instructions with any JSON object."""
    play(Line("", '{"rooms": 3, "colour": "grün"}'), Line("", function="final_result", arguments=GREEN))
    answer = await Agent(model, output_type=form(House)).run("Build a house.")
    assert answer.output == House(rooms=3, colour="grün")


async def test_streamed_structured_output(model: OpenAIChatModel, play: Play) -> None:
    play(Line("", function="final_result", arguments=GREEN))
    async with Agent(model, output_type=ToolOutput(House)).run_stream("Build a house.") as answer:
        houses = [house async for house in answer.stream_output(debounce_by=None)]
    assert houses[-1] == House(rooms=3, colour="grün")


async def test_an_output_that_is_refused_is_asked_for_again(model: OpenAIChatModel, play: Play) -> None:
    play(
        Line("too many rooms", function="final_result", arguments={"rooms": 2, "colour": "red"}),
        Line("", function="final_result", arguments={"rooms": 90, "colour": "red"}),
    )
    agent: Agent[None, House] = Agent(model, output_type=ToolOutput(House))

    @agent.output_validator
    def few(house: House) -> House:
        if house.rooms > 9:
            raise ModelRetry("too many rooms")
        return house

    assert (await agent.run("Build a house.")).output.rooms == 2
    assert len(play.prompts) == 2


async def test_settings_reach_the_engine(model: OpenAIChatModel, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    settings = OpenAIChatModelSettings(
        temperature=0.5,
        top_p=0.9,
        seed=7,
        max_tokens=20,
        stop_sequences=["\n"],
        presence_penalty=0.5,
        logit_bias={"5": 2},
        openai_logprobs=True,
        openai_user="me",
        extra_body={"top_k": 4},
    )
    answer = await Agent(model).run("Hallo", model_settings=settings)
    sent = triton.requests[0]
    assert (sent["temperature"], sent["runtime_top_p"], sent["runtime_top_k"]) == (0.5, 0.9, 4)
    assert (sent["seed"], sent["request_output_len"], sent["presence_penalty"]) == (7, 20, 0.5)
    assert sent["embedding_bias"][5] == 2
    details = answer.response.provider_details
    assert details is not None
    assert details["finish_reason"] == "stop"
    assert [each["token"] for each in details["logprobs"]] == [" Ein", " Haus"]


async def test_errors_have_their_status_and_message(model: OpenAIChatModel, triton: FakeTriton) -> None:
    with pytest.raises(ModelHTTPError, match="temperature") as refused:
        await Agent(model).run("Hallo", model_settings={"temperature": 3})
    assert refused.value.status_code == 400
    triton.script = [Refusal(503, "model is not ready")]
    with pytest.raises(ModelHTTPError) as unavailable:
        await Agent(model).run("Hallo")
    assert unavailable.value.status_code == 503


async def test_the_responses_api(provider: OpenAIProvider, play: Play) -> None:
    play(*TEMPERATURE)
    agent = agent_with_temperature(OpenAIResponsesModel(MODEL, provider=provider))
    assert (await agent.run("How warm is it?")).output == "mild"
    async with agent.run_stream("How warm is it?") as answer:
        assert await answer.get_output() == "mild"
