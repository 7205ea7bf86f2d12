"""OpenAI's own client works unchanged."""

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.frontend.conftest import MODEL
from tests.frontend.fake_triton import Events, FakeTriton

MESSAGES: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "Antworte kurz."},
    {"role": "user", "content": "Was ist ein Haus?"},
]
HAUS = Events([[6004], [21209]], pause_s=0.02)


def test_answer(client: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=0)
    assert answer.choices[0].message.content == " Ein Haus"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 2
    assert triton.requests[0]["runtime_top_k"] == 1


def test_stream(client: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == " Ein Haus"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 2
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1


def test_stream_helper(client: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    with client.chat.completions.stream(model=MODEL, messages=MESSAGES) as stream:
        assert stream.get_final_completion().choices[0].message.content == " Ein Haus"


def test_error_event_is_raised(client: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [HAUS, Events(["boom"])]
    with pytest.raises(openai.APIError, match="could not complete"):
        list(client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True))


def test_errors_have_the_types_that_the_client_knows(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-4", messages=MESSAGES)
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, extra_body={"best_of": 2})
    assert (missing.value.code, bad.value.param) == ("model_not_found", "best_of")


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL, "mixtral"]
    assert client.models.retrieve(MODEL).id == MODEL
