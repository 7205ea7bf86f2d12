"""Stored responses, by OpenAI's own client: asked for, continued and deleted, by the key that they were made with."""

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, Literal
from unittest.mock import ANY

import openai
import pytest
from openai.types.responses import Response, ResponseFunctionToolCall
from openai.types.responses.response_item import ResponseItem
from pydantic import TypeAdapter

from frontend.text.served_model import ServedModel
from tests.frontend.conftest import API_KEY, MODEL, OTHER_KEY, Running
from tests.frontend.fake_triton import Events, FakeTriton
from tests.frontend.openai.responses.test_client import HAUS, WEATHER, body, tokens_of, validated

CALL = '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Bonn"}}]'
TURM = Events([[320, 8399]])


@pytest.fixture
def client_of(frontend: Running) -> Iterator[Callable[[str], openai.OpenAI]]:
    """Clients by their key."""
    opened: list[openai.OpenAI] = []

    def make(key: str) -> openai.OpenAI:
        opened.append(openai.OpenAI(base_url=f"{frontend.storing_url}/v1", api_key=key, max_retries=0, timeout=60))
        return opened[-1]

    yield make
    for client in opened:
        client.close()


@pytest.fixture
def storing(client_of: Callable[[str], openai.OpenAI]) -> openai.OpenAI:
    """A client of the frontend that stores responses."""
    return client_of(API_KEY)


def prompt_of(triton: FakeTriton) -> list[int]:
    """Token ids of the last request to the engine."""
    prompt: list[int] = triton.requests[-1]["input_ids"]
    return prompt


def call_of_weather(
    storing: openai.OpenAI, triton: FakeTriton, mixtral: ServedModel
) -> tuple[Response, ResponseFunctionToolCall]:
    """A stored response, and the call that it consists of."""
    triton.script = tokens_of(mixtral, CALL)
    asked: Response = storing.responses.create(**body(tools=[WEATHER]))
    [call] = asked.output
    assert call.type == "function_call"
    return asked, call


def test_a_response_is_stored_unless_the_request_says_no(storing: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    for fields in ({}, {"store": True}):
        answer = storing.responses.create(**body(**fields))
        assert answer.to_dict()["store"] is True
        assert storing.responses.retrieve(answer.id).to_dict() == answer.to_dict()
    unstored = storing.responses.create(**body(store=False))
    assert unstored.to_dict()["store"] is False
    with pytest.raises(openai.NotFoundError, match=f"No response `{unstored.id}` is stored here"):
        storing.responses.retrieve(unstored.id)


def test_a_stream_is_stored_before_its_last_event(storing: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    *_, last = storing.responses.create(**body(stream=True))
    assert last.type == "response.completed"
    stored = storing.responses.retrieve(last.response.id)
    assert stored.to_dict() == last.response.to_dict()
    assert stored.output_text == " Ein Haus"


def test_a_response_is_continued_as_if_all_of_it_were_sent(storing: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    first = storing.responses.create(**body(instructions="Kurz."))
    second = storing.responses.create(model=MODEL, input="Und ein Turm?", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    third = storing.responses.create(model=MODEL, input="Danke.", previous_response_id=second.id, stream=True)
    assert list(third)[-1].type == "response.completed"
    continued = prompt_of(triton)
    conversation: list[dict[str, Any]] = [
        {"role": "user", "content": "Was ist ein Haus?"},
        {"role": "assistant", "content": " Ein Haus"},
        {"role": "user", "content": "Und ein Turm?"},
        {"role": "assistant", "content": " Ein Haus"},
        {"role": "user", "content": "Danke."},
    ]  # without the instructions, which hold for one response
    storing.responses.create(**body(input=conversation))
    assert prompt_of(triton) == continued


def test_the_result_of_a_call_is_all_that_a_client_sends(
    storing: openai.OpenAI, triton: FakeTriton, mixtral: ServedModel
) -> None:
    asked, call = call_of_weather(storing, triton, mixtral)
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "18 Grad"}
    triton.script = [HAUS]
    answer = storing.responses.create(model=MODEL, input=[result], tools=[WEATHER], previous_response_id=asked.id)
    assert answer.output_text == " Ein Haus"
    continued = prompt_of(triton)
    call_item: Any = call.to_dict()
    storing.responses.create(
        **body(input=[{"role": "user", "content": "Was ist ein Haus?"}, call_item, result], tools=[WEATHER])
    )
    assert prompt_of(triton) == continued


def test_what_a_response_was_generated_from_is_listed_with_what_it_continues(
    storing: openai.OpenAI, triton: FakeTriton, mixtral: ServedModel
) -> None:
    asked, call = call_of_weather(storing, triton, mixtral)
    triton.script = [HAUS]
    new: Any = [
        {"type": "function_call_output", "call_id": call.call_id, "output": "18 Grad"},
        {"role": "assistant", "content": "Gut."},
        {"role": "user", "content": "Danke.", "id": "msg_mine"},
    ]
    answer = storing.responses.create(model=MODEL, input=new, tools=[WEATHER], previous_response_id=asked.id)
    listed = storing.responses.input_items.list(answer.id, order="asc")
    assert [TypeAdapter(ResponseItem).validate_python(item.to_dict()).type for item in listed.data] == [
        "message", "function_call", "function_call_output", "message", "message",
    ]  # fmt: skip
    shown = [item.to_dict() for item in listed.data]
    assert shown[0]["content"] == [{"type": "input_text", "text": "Was ist ein Haus?"}]
    assert shown[1] == call.to_dict()
    assert shown[3]["content"] == [{"type": "output_text", "text": "Gut.", "annotations": []}]
    assert shown[4] == {
        "id": "msg_mine", "type": "message", "status": "completed", "role": "user",
        "content": [{"type": "input_text", "text": "Danke."}],
    }  # fmt: skip
    assert len({item["id"] for item in shown}) == 5
    assert [item.to_dict() for item in storing.responses.input_items.list(asked.id)] == [
        shown[0] | {"id": ANY}
    ]  # the call is its output


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_items_are_listed_page_by_page(
    storing: openai.OpenAI, triton: FakeTriton, order: Literal["asc", "desc"], limit: int
) -> None:
    triton.script = [HAUS]
    texts = ["eins", "zwei", "drei"]
    answer = storing.responses.create(**body(input=[{"role": "user", "content": text} for text in texts]))
    listed: list[Any] = list(storing.responses.input_items.list(answer.id, order=order, limit=limit))
    assert [item.content[0].text for item in listed] == (texts if order == "asc" else texts[::-1])
    assert storing.responses.input_items.list(answer.id, after=listed[-1].id, order=order).data == []


def test_an_item_that_is_not_there_and_a_page_without_items_are_refused(
    storing: openai.OpenAI, triton: FakeTriton
) -> None:
    triton.script = [HAUS]
    answer = storing.responses.create(**body())
    fields: Any
    for fields, param in (({"after": "msg_0"}, "after"), ({"limit": 0}, "limit"), ({"order": "up"}, "order")):
        with pytest.raises(openai.BadRequestError) as failure:
            storing.responses.input_items.list(answer.id, **fields)
        assert failure.value.param == param
    with pytest.raises(openai.NotFoundError):
        storing.responses.input_items.list("resp_none")
    with pytest.raises(openai.BadRequestError, match="Invalid `stream`: Input should be a valid boolean") as wrong:
        storing.responses.retrieve(answer.id, extra_query={"stream": "perhaps"})
    assert wrong.value.param == "stream"


def test_a_complete_response_cannot_be_cancelled(storing: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    answer = storing.responses.create(**body())
    with pytest.raises(openai.BadRequestError, match="Only a response with `background` can be cancelled"):
        storing.responses.cancel(answer.id)
    with pytest.raises(openai.NotFoundError):
        storing.responses.cancel("resp_none")


def test_an_error_in_the_new_items_names_their_own_index(storing: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    first = storing.responses.create(**body())
    stray: Any = {"type": "function_call_output", "call_id": "none", "output": "18 Grad"}
    with pytest.raises(openai.BadRequestError) as failure:
        storing.responses.create(model=MODEL, input=[stray], previous_response_id=first.id)
    assert failure.value.param == "input[0].call_id"


def test_what_continues_a_deleted_response_stays_whole(storing: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    first = storing.responses.create(**body())
    second = storing.responses.create(model=MODEL, input="Und ein Turm?", previous_response_id=first.id)
    storing.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        storing.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError) as failure:
        storing.responses.create(model=MODEL, input="Danke.", previous_response_id=first.id)
    assert (failure.value.param, failure.value.code) == ("previous_response_id", "response_not_found")
    storing.responses.create(model=MODEL, input="Danke.", previous_response_id=second.id)
    assert len(prompt_of(triton)) > 20


def test_another_key_finds_nothing(client_of: Callable[[str], openai.OpenAI], triton: FakeTriton) -> None:
    triton.script = [HAUS]
    owner, other = client_of(API_KEY), client_of(OTHER_KEY)
    answer = owner.responses.create(**body())
    for attempt in (
        lambda: other.responses.retrieve(answer.id),
        lambda: other.responses.delete(answer.id),
        lambda: other.responses.input_items.list(answer.id),
        lambda: other.responses.cancel(answer.id),
        lambda: other.responses.create(model=MODEL, input="Danke.", previous_response_id=answer.id),
    ):
        with pytest.raises(openai.NotFoundError):
            attempt()
    assert owner.responses.retrieve(answer.id).id == answer.id


def test_a_stored_response_is_valid_for_openais_type(storing: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    raw = storing.responses.with_raw_response.retrieve(storing.responses.create(**body()).id)
    assert raw.headers["content-type"] == "application/json"
    answer: Any = raw.http_response.json()
    validated(answer | {"store": False})


def test_a_file_that_cannot_be_written_fails_the_response(
    frontend: Running, storing: openai.OpenAI, triton: FakeTriton
) -> None:
    triton.script = [HAUS]
    with sqlite3.connect(frontend.store) as database:
        database.execute("ALTER TABLE responses RENAME TO away")
    try:
        with pytest.raises(openai.InternalServerError) as failure:
            storing.responses.create(**body())
        assert failure.value.code == "store_failed"
        last = list(storing.responses.create(**body(stream=True)))[-1]
        assert last.type == "response.failed"
        assert storing.responses.create(**body(store=False)).output_text == " Ein Haus"
    finally:
        with sqlite3.connect(frontend.store) as database:
            database.execute("ALTER TABLE away RENAME TO responses")
        database.close()


def test_without_a_store_nothing_is_kept(client: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    answer = client.responses.create(**body())
    assert answer.to_dict()["store"] is False
    for fields in ({"store": True}, {"previous_response_id": answer.id}):
        with pytest.raises(openai.BadRequestError, match="runs without `--response-store`") as failure:
            client.responses.create(**body(**fields))
        assert failure.value.param == next(iter(fields))
    with pytest.raises(openai.NotFoundError, match="runs without --response-store"):
        client.responses.retrieve(answer.id)


def test_a_stored_response_is_not_streamed_again(storing: openai.OpenAI, triton: FakeTriton) -> None:
    triton.script = [HAUS]
    answer = storing.responses.create(**body())
    with pytest.raises(openai.BadRequestError) as failure:
        storing.responses.retrieve(answer.id, stream=True)
    assert failure.value.param == "stream"
