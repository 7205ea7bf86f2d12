"""Anthropic's own client uses /v1/messages unchanged, and every event comes in Anthropic's order."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic.types import Message, ToolParam
from pydantic import BaseModel

from frontend.text.served_model import ServedModel
from tests.conformance.scripted_model import Line, ScriptedModel
from tests.frontend.conftest import API_KEY, MODEL, Running
from tests.frontend.fake_triton import Events, FakeTriton, Step

HAUS = Events([[6004], [21209]], pause_s=0.02)
ASK: Any = [{"role": "user", "content": "Was ist ein Haus?"}]
WEATHER: ToolParam = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
TWO_CALLS = (
    '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Bonn"}}, '
    '{"name": "get_weather", "arguments": {"city": "Köln"}}]'
)


@pytest.fixture
def claude(frontend: Running) -> Iterator[anthropic.Anthropic]:
    """Anthropic's client, whose address has no /v1."""
    with anthropic.Anthropic(base_url=frontend.url, api_key="none", max_retries=0, timeout=60) as client:
        yield client


def tokens_of(model: ServedModel, text: str) -> list[Step]:
    """A script of an engine that generates this text, token by token."""
    return [Events([[token_id] for token_id in model.tokenizer.encode_text(text, add_special_tokens=False)])]


def prompt_of(triton: FakeTriton, model: ServedModel) -> str:
    """The prompt of the last request."""
    return model.tokenizer.decode(triton.requests[-1]["input_ids"])


def test_answer(claude: anthropic.Anthropic, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    answer = claude.messages.create(model=MODEL, max_tokens=50, messages=ASK)
    assert [block.to_dict() for block in answer.content] == [{"type": "text", "text": " Ein Haus"}]
    assert (answer.role, answer.type, answer.model) == ("assistant", "message", MODEL)
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    assert answer.usage.input_tokens == len(triton.requests[0]["input_ids"])
    assert answer.usage.output_tokens == 2
    assert answer.id.startswith("msg_")
    assert str(answer._request_id).startswith("req_")


def test_parameters_reach_the_engine(claude: anthropic.Anthropic, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    claude.messages.create(
        model="mixtral",
        max_tokens=7,
        messages=ASK,
        metadata={"user_id": "me"},
        extra_body={"temperature": 0.5, "top_p": 0.9, "top_k": 5},
    )
    sent = triton.requests[0]
    assert (sent["request_output_len"], sent["temperature"]) == (7, 0.5)
    assert (sent["runtime_top_p"], sent["runtime_top_k"]) == (0.9, 5)


def test_the_temperature_is_1_by_default(claude: anthropic.Anthropic, triton: FakeTriton) -> None:
    claude.messages.create(model=MODEL, max_tokens=7, messages=ASK)
    assert triton.requests[0]["temperature"] == 1


@pytest.mark.parametrize("system", ["Sprich kurz.", [{"type": "text", "text": "Sprich kurz."}]])
def test_system_prompt(claude: anthropic.Anthropic, triton: FakeTriton, mixtral: ServedModel, system: Any) -> None:
    claude.messages.create(model=MODEL, max_tokens=7, messages=ASK, system=system)
    assert prompt_of(triton, mixtral) == "<s> [INST] Sprich kurz.\n\nWas ist ein Haus? [/INST]"


def test_stream_in_anthropics_order(claude: anthropic.Anthropic, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    raw = claude.messages.with_raw_response.create(model=MODEL, max_tokens=50, messages=ASK, stream=True)
    events = [json.loads(line.removeprefix("data: ")) for line in raw.http_response.iter_lines() if "data: " in line]
    message = events[0]["message"]
    prompt = len(triton.requests[0]["input_ids"])
    assert events == [
        {
            "type": "message_start",
            "message": {
                "id": message["id"],
                "type": "message",
                "role": "assistant",
                "content": [],
                "model": MODEL,
                "stop_reason": None,
                "stop_sequence": None,
                "usage": {
                    "input_tokens": prompt,
                    "cache_creation_input_tokens": None,
                    "cache_read_input_tokens": None,
                    "output_tokens": 0,
                },
            },
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " Ein"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " Haus"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": message["usage"] | {"output_tokens": 2},
        },
        {"type": "message_stop"},
    ]


def test_the_clients_stream_builds_the_same_message(claude: anthropic.Anthropic, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    whole = claude.messages.create(model=MODEL, max_tokens=50, messages=ASK)
    with claude.messages.stream(model=MODEL, max_tokens=50, messages=ASK) as stream:
        assert "".join(stream.text_stream) == " Ein Haus"
        built = stream.get_final_message()
    assert comparable(built) == comparable(whole)


def comparable(message: Message) -> dict[str, Any]:
    """Without what is new in every message, and what only the client's stream adds."""
    content = message.to_dict(mode="json")
    blocks: Any = content["content"]
    dropped = ("id", "parsed_output")
    content.pop("stop_details", None)
    return {
        **content,
        "id": None,
        "content": [{name: value for name, value in block.items() if name not in dropped} for block in blocks],
    }


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_sequence_is_named(claude: anthropic.Anthropic, triton: FakeTriton, stream: bool) -> None:
    triton.script = [HAUS]
    answer = create(claude, stream=stream, stop_sequences=["x", "aus"])
    assert [block.to_dict()["text"] for block in answer.content] == [" Ein H"]
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "aus")


def create(claude: anthropic.Anthropic, *, stream: bool, **fields: Any) -> Message:
    """The message of a request, whichever way it comes."""
    fields = {"model": MODEL, "max_tokens": 500, "messages": ASK, **fields}
    if not stream:
        message: Message = claude.messages.create(**fields)
        return message
    with claude.messages.stream(**fields) as events:
        built: Message = events.get_final_message()
        return built


@pytest.mark.parametrize("stream", [False, True])
def test_max_tokens(claude: anthropic.Anthropic, triton: FakeTriton, stream: bool) -> None:
    triton.script = [HAUS]
    assert create(claude, stream=stream, max_tokens=2).stop_reason == "max_tokens"


@pytest.mark.parametrize("stream", [False, True])
def test_max_tokens_that_do_not_fit_fill_the_context(
    claude: anthropic.Anthropic, triton: FakeTriton, mixtral: ServedModel, stream: bool
) -> None:
    room = 4096 - len(mixtral.tokenizer.encode_text("[INST] Was ist ein Haus? [/INST]", add_special_tokens=True))
    triton.script = [Events([[6004] * room])]
    answer = create(claude, stream=stream, max_tokens=32_000)
    assert triton.requests[0]["request_output_len"] == room == answer.usage.output_tokens
    assert answer.stop_reason == "model_context_window_exceeded"


@pytest.mark.parametrize("stream", [False, True])
def test_tools_are_called(claude: anthropic.Anthropic, triton: FakeTriton, mixtral: ServedModel, stream: bool) -> None:
    triton.script = tokens_of(mixtral, f"Ich frage. {TWO_CALLS}")
    answer = create(claude, stream=stream, tools=[WEATHER])
    text, *calls = (block.to_dict() for block in answer.content)
    assert text["type"] == "text"
    assert str(text["text"]).strip() == "Ich frage."
    assert [(call["type"], call["name"], call["input"]) for call in calls] == [
        ("tool_use", "get_weather", {"city": "Bonn"}),
        ("tool_use", "get_weather", {"city": "Köln"}),
    ]
    assert len({call["id"] for call in calls}) == 2
    assert answer.stop_reason == "tool_use"


def test_every_block_of_a_stream_ends_before_the_next(
    claude: anthropic.Anthropic, triton: FakeTriton, mixtral: ServedModel
) -> None:
    triton.script = tokens_of(mixtral, f"Ich frage. {TWO_CALLS}")
    events = claude.messages.create(model=MODEL, max_tokens=500, messages=ASK, tools=[WEATHER], stream=True)
    steps: list[tuple[str, Any]] = []
    for event in events:
        step = (event.type, getattr(event, "index", None))
        if steps[-1:] != [step]:
            steps.append(step)
    of_blocks = [
        (kind, index) for index in range(3) for kind in
        ("content_block_start", "content_block_delta", "content_block_stop")
    ]  # fmt: skip
    assert steps == [("message_start", None), *of_blocks, ("message_delta", None), ("message_stop", None)]


def test_a_conversation_with_results_goes_on(
    claude: anthropic.Anthropic, triton: FakeTriton, mixtral: ServedModel
) -> None:
    script = [Line("sunny", "Sonne."), Line("", function="get_weather", arguments={"city": "Bonn"})]
    triton.script = ScriptedModel(mixtral.tokenizer, script)
    messages: Any = [{"role": "user", "content": "Weather in Bonn?"}]
    asked = claude.messages.create(
        model=MODEL, max_tokens=500, messages=messages, tools=[WEATHER], tool_choice={"type": "any"}
    )
    [call] = asked.content
    assert call.type == "tool_use"
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "sunny"}]}
    messages += [asked.to_param(), {"role": "user", "content": [result, {"type": "text", "text": "So?"}]}]
    answer = claude.messages.create(model=MODEL, max_tokens=500, messages=messages, tools=[WEATHER])
    assert [block.to_dict() for block in answer.content] == [{"type": "text", "text": "Sonne."}]
    prompt = prompt_of(triton, mixtral)
    assert '{"city": "Bonn"}' in prompt
    assert prompt.index("sunny") < prompt.index("So?")


def test_the_tool_runner_calls_the_function_and_answers(
    claude: anthropic.Anthropic, triton: FakeTriton, mixtral: ServedModel
) -> None:
    cities: list[str] = []

    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """The weather of a city."""
        cities.append(city)
        return "sunny"

    script = [Line("sunny", "Sonne."), Line("", function="get_weather", arguments={"city": "Bonn"})]
    triton.script = ScriptedModel(mixtral.tokenizer, script)
    last = claude.beta.messages.tool_runner(
        model=MODEL, max_tokens=500, tools=[get_weather], messages=[{"role": "user", "content": "Weather in Bonn?"}]
    ).until_done()
    assert cities == ["Bonn"]
    assert [block.to_dict() for block in last.content] == [{"type": "text", "text": "Sonne."}]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("choice", "called"),
    [
        ({"type": "any"}, True),
        ({"type": "any", "disable_parallel_tool_use": True}, True),
        ({"type": "tool", "name": "get_weather"}, True),
        ({"type": "none"}, False),
    ],
)
def test_tool_choice(
    claude: anthropic.Anthropic, triton: FakeTriton, mixtral: ServedModel, choice: Any, called: bool, stream: bool
) -> None:
    line = Line("", function="get_weather", arguments={"city": "Bonn"})
    triton.script = ScriptedModel(mixtral.tokenizer, [line] if called else [Line("", "Nein.")])
    answer = create(claude, stream=stream, tools=[WEATHER], tool_choice=choice)
    expected = {"type": "tool_use", "name": "get_weather", "input": {"city": "Bonn"}}
    [block] = (block.to_dict() for block in answer.content)
    assert {name: block.get(name) for name in expected} == (
        expected if called else {"type": "text", "name": None, "input": None}
    )
    assert answer.stop_reason == ("tool_use" if called else "end_turn")


def test_one_call_at_most_is_part_of_the_grammar(
    claude: anthropic.Anthropic, triton: FakeTriton, mixtral: ServedModel
) -> None:
    for parallel in (True, False):
        triton.script = ScriptedModel(mixtral.tokenizer, [Line("", TWO_CALLS), Line("", "Nein.")])
        choice = {"type": "auto", "disable_parallel_tool_use": not parallel}
        answer = create(claude, stream=False, tools=[WEATHER], tool_choice=choice)
        assert len([block for block in answer.content if block.type == "tool_use"]) == (2 if parallel else 0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_max_tokens_cuts_has_the_values_that_are_complete(
    claude: anthropic.Anthropic, triton: FakeTriton, mixtral: ServedModel, stream: bool
) -> None:
    cut = '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Bonn", "days": [1, 2'
    token_ids = mixtral.tokenizer.encode_text(cut, add_special_tokens=False)
    triton.script = [Events([[token_id] for token_id in token_ids])]
    answer = create(claude, stream=stream, tools=[WEATHER], max_tokens=len(token_ids))
    [block] = answer.content
    assert block.type == "tool_use"
    assert block.input["city"] == "Bonn"
    assert answer.stop_reason == "max_tokens"


class House(BaseModel):
    """What the answer describes."""

    rooms: int


def test_output_format(claude: anthropic.Anthropic, triton: FakeTriton, mixtral: ServedModel) -> None:
    triton.script = ScriptedModel(mixtral.tokenizer, [Line("", "no JSON"), Line("", '{"rooms": 3}')])
    answer = claude.messages.parse(model=MODEL, max_tokens=50, messages=ASK, output_format=House)
    assert answer.parsed_output == House(rooms=3)


def test_an_answer_may_be_begun(claude: anthropic.Anthropic, triton: FakeTriton, mixtral: ServedModel) -> None:
    messages: Any = [*ASK, {"role": "assistant", "content": "Ein Haus ist ("}]
    claude.messages.create(model=MODEL, max_tokens=50, messages=messages)
    assert prompt_of(triton, mixtral) == "<s> [INST] Was ist ein Haus? [/INST]Ein Haus ist ("


def test_thinking_has_no_effect(claude: anthropic.Anthropic, triton: FakeTriton, mixtral: ServedModel) -> None:
    thought = {"type": "thinking", "thinking": "secret", "signature": "s"}
    messages: Any = [
        *ASK,
        {"role": "assistant", "content": [thought, {"type": "text", "text": "A."}]},
        {"role": "user", "content": "B?"},
    ]
    raw = claude.messages.with_raw_response.create(
        model=MODEL, max_tokens=2000, messages=messages, thinking={"type": "enabled", "budget_tokens": 1024}
    )
    assert "x-ignored-params" not in raw.headers
    assert "secret" not in prompt_of(triton, mixtral)


def test_what_has_no_effect_is_named(claude: anthropic.Anthropic) -> None:
    raw = claude.messages.with_raw_response.create(
        model=MODEL,
        max_tokens=20,
        messages=ASK,
        service_tier="auto",
        tools=[WEATHER, {"type": "web_search_20250305", "name": "web_search"}],
    )
    assert raw.headers["x-ignored-params"] == "service_tier, tools.web_search_20250305"


def test_cached_tokens_are_part_of_the_usage_where_they_are_known(frontend: Running) -> None:
    frontend.triton.num_reused_blocks = 1
    long: Any = [{"role": "user", "content": "Haus " * 100}]
    with anthropic.Anthropic(base_url=frontend.details_url, api_key="none", max_retries=0) as client:
        usages = [create(client, stream=stream, messages=long).usage for stream in (False, True)]
    prompt = len(frontend.triton.requests[0]["input_ids"])
    for usage in usages:
        assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (32, 0)
        assert usage.input_tokens == prompt - 32


def test_tokens_are_counted_as_the_engine_would_get_them(claude: anthropic.Anthropic, triton: FakeTriton) -> None:
    body: Any = {"model": MODEL, "messages": ASK, "system": "Kurz.", "tools": [WEATHER]}
    counted = claude.messages.count_tokens(**body)
    claude.messages.create(max_tokens=5, **body)
    assert counted.input_tokens == len(triton.requests[0]["input_ids"]) > 50


async def test_asynchronous_client(frontend: Running) -> None:
    frontend.triton.script = [HAUS]
    async with anthropic.AsyncAnthropic(base_url=frontend.url, api_key="none", max_retries=0) as client:
        async with client.messages.stream(model=MODEL, max_tokens=50, messages=ASK) as stream:
            texts = [text async for text in stream.text_stream]
        answer = await client.messages.create(model=MODEL, max_tokens=50, messages=ASK)
    assert "".join(texts) == " Ein Haus"
    assert answer.usage.output_tokens == 2


# ---- errors --------------------------------------------------------------------------------------------------------


def test_an_unknown_model_is_not_found(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        claude.messages.create(model="claude-opus-4-1", max_tokens=5, messages=ASK)
    assert caught.value.type == "not_found_error"
    assert str(caught.value.api_message).startswith("`model`: ") or "`claude-opus-4-1`" in str(caught.value.api_message)
    assert caught.value.request_id == caught.value.body["request_id"]  # type: ignore[index]


def test_an_image_is_refused_by_name(claude: anthropic.Anthropic) -> None:
    image: Any = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    with pytest.raises(anthropic.BadRequestError) as caught:
        claude.messages.create(model=MODEL, max_tokens=5, messages=[{"role": "user", "content": [image]}])
    assert caught.value.type == "invalid_request_error"
    assert "`messages[0].content[0]`" in str(caught.value.api_message)
    assert "'image'" in str(caught.value.api_message)


@pytest.mark.parametrize("key", [None, "wrong", API_KEY])
@pytest.mark.parametrize("name", ["api_key", "auth_token", "x-api-key"])
def test_the_key_may_come_in_either_header(frontend: Running, key: str | None, name: str) -> None:
    given = key or "none"
    options: dict[str, Any] = {name: given}
    if name == "x-api-key":  # as clients send it that are older or of another language
        options = {"default_headers": {name: given, "Authorization": anthropic.omit}}
    with anthropic.Anthropic(base_url=frontend.guarded_url, max_retries=0, **options) as client:
        if key == API_KEY:
            assert client.messages.create(model=MODEL, max_tokens=5, messages=ASK).type == "message"
            return
        with pytest.raises(anthropic.AuthenticationError) as caught:
            client.messages.create(model=MODEL, max_tokens=5, messages=ASK)
        assert caught.value.type == "authentication_error"


def test_a_failing_engine_is_an_api_error(claude: anthropic.Anthropic, triton: FakeTriton) -> None:
    triton.script = [Events(["boom"])]
    with pytest.raises(anthropic.InternalServerError) as caught:
        claude.messages.create(model=MODEL, max_tokens=5, messages=ASK)
    assert caught.value.type == "api_error"


def test_an_engine_that_fails_later_ends_the_stream_with_an_error_event(
    claude: anthropic.Anthropic, triton: FakeTriton
) -> None:
    triton.script = [Events([[6004]], pause_s=0.1), Events(["boom"])]
    with (
        claude.messages.stream(model=MODEL, max_tokens=5, messages=ASK) as stream,
        pytest.raises(anthropic.APIStatusError) as caught,
    ):
        stream.until_done()
    assert caught.value.type == "api_error"
    assert "The engine could not complete the request." in str(caught.value.api_message)


def test_a_missing_engine_is_overloaded(claude: anthropic.Anthropic, frontend: Running) -> None:
    frontend.kill_triton()
    try:
        with pytest.raises(anthropic.ServiceUnavailableError) as caught:
            claude.messages.create(model=MODEL, max_tokens=5, messages=ASK)
    finally:
        frontend.revive_triton()
    assert caught.value.type == "overloaded_error"
