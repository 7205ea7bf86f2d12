"""Streams of responses to the byte, and the same response however the tokens are divided among deltas."""

import json
from collections.abc import Callable, Sequence
from itertools import count, pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from frontend.errors import EngineFailed
from frontend.generation import (
    Delta,
    Ending,
    EndTokens,
    FinishReason,
    GenerationRequest,
    Outcome,
    SamplingParams,
    Token,
    TokenChunk,
    Usage,
)
from frontend.openai.job import Answer, ReplyWriter
from frontend.openai.reply import Reply
from frontend.openai.responses.request import to_responses_job
from frontend.openai.responses.response import ResponsesWriter
from frontend.openai.responses.types import ResponsesRequest
from frontend.text.detokenizer import AnswerDecoder
from frontend.text.served_model import ServedModel
from frontend.text.tool_parser import ToolCallParser
from frontend.text.tools import ToolChoice

RESPONSE: dict[str, Any] = {"id": "resp_7", "status": "in_progress", "output": [], "usage": None}
USAGE = (
    '{"input_tokens":3,"input_tokens_details":{"cached_tokens":0,"cache_write_tokens":0},'
    '"output_tokens":2,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":5}'
)
CALLS = '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]'


def writer_of(choice: ToolChoice | None = None) -> ResponsesWriter:
    numbers = count()
    parser = None if choice is None else ToolCallParser(choice, lambda: f"call_{next(numbers)}")
    return ResponsesWriter(RESPONSE, parser)


def outcome(reason: FinishReason = "stop") -> Outcome:
    usage = Usage(num_prompt_tokens=3, num_completion_tokens=2)
    return Outcome(ending=Ending(finish_reason=reason, stop_reason=None), usage=usage)


def stream(writer: ResponsesWriter, texts: Sequence[str], reason: FinishReason = "stop") -> list[tuple[str, str]]:
    """Names and data of all events."""
    deltas = [writer.delta(0, Delta(text)) for text in texts]
    ended = [writer.finish(0, outcome(reason)), writer.end([outcome(reason)])]
    return events_of(b"".join(deltas + ended))


def events_of(body: bytes) -> list[tuple[str, str]]:
    *frames, rest = body.decode().split("\n\n")
    assert rest == ""
    events = []
    for frame in frames:
        name, data = frame.split("\n")
        events.append((name.removeprefix("event: "), data.removeprefix("data: ")))
    return events


def test_every_event_of_a_message_to_the_byte() -> None:
    writer = writer_of()
    message = '{"id":"msg_70","type":"message","status":"%s","content":[%s],"role":"assistant"}'
    part = '{"type":"output_text","annotations":[],"logprobs":[],"text":"%s"}'
    response = '{"id":"resp_7","status":"%s","output":[%s],"usage":%s}'
    part_fields = '"item_id":"msg_70","output_index":0,"content_index":0'
    complete = message % ("completed", part % "Ein „Haus“")
    expected = [
        ("response.created", '"response":' + response % ("in_progress", "", "null")),
        ("response.in_progress", '"response":' + response % ("in_progress", "", "null")),
        ("response.output_item.added", '"output_index":0,"item":' + message % ("in_progress", "")),
        ("response.content_part.added", part_fields + ',"part":' + part % ""),
        ("response.output_text.delta", part_fields + ',"delta":"Ein ","logprobs":[]'),
        ("response.output_text.delta", part_fields + ',"delta":"„Haus“","logprobs":[]'),
        ("response.output_text.done", part_fields + ',"text":"Ein „Haus“","logprobs":[]'),
        ("response.content_part.done", part_fields + ',"part":' + part % "Ein „Haus“"),
        ("response.output_item.done", '"output_index":0,"item":' + complete),
        ("response.completed", '"response":' + response % ("completed", complete, USAGE)),
    ]
    body = writer.start() + b"".join(writer.delta(0, Delta(text)) for text in ("Ein ", "", "„Haus“"))
    body += writer.finish(0, outcome()) + writer.end([outcome()])
    assert body.decode() == "".join(
        f'event: {name}\ndata: {{"type":"{name}","sequence_number":{number},{fields}}}\n\n'
        for number, (name, fields) in enumerate(expected)
    )


def test_every_event_of_calls_to_the_byte() -> None:
    call = '{"id":"fc_7%d","type":"function_call","status":"%s","arguments":"%s","call_id":"call_%d","name":"%s"}'
    first = call % (0, "completed", r"{\"a\": 1}", 0, "f")
    second = call % (1, "completed", "{}", 1, "g")
    expected = [
        ("response.output_item.added", '"output_index":0,"item":' + call % (0, "in_progress", "", 0, "f")),
        ("response.function_call_arguments.delta", r'"item_id":"fc_70","output_index":0,"delta":"{\"a\": 1"'),
        ("response.function_call_arguments.delta", r'"item_id":"fc_70","output_index":0,"delta":"}"'),
        (
            "response.function_call_arguments.done",
            r'"item_id":"fc_70","output_index":0,"name":"f","arguments":"{\"a\": 1}"',
        ),
        ("response.output_item.done", f'"output_index":0,"item":{first}'),
        ("response.output_item.added", '"output_index":1,"item":' + call % (1, "in_progress", "", 1, "g")),
        ("response.function_call_arguments.delta", '"item_id":"fc_71","output_index":1,"delta":"{}"'),
        (
            "response.function_call_arguments.done",
            '"item_id":"fc_71","output_index":1,"name":"g","arguments":"{}"',
        ),
        ("response.output_item.done", f'"output_index":1,"item":{second}'),
        (
            "response.completed",
            f'"response":{{"id":"resp_7","status":"completed","output":[{first},{second}],"usage":{USAGE}}}',
        ),
    ]
    cut = CALLS.index("}")
    assert stream(writer_of(ToolChoice(mode="auto")), [CALLS[:cut], CALLS[cut:]]) == [
        (name, f'{{"type":"{name}","sequence_number":{number},{fields}}}')
        for number, (name, fields) in enumerate(expected)
    ]


def test_log_probabilities_come_with_their_text_and_are_repeated_at_the_end() -> None:
    writer = writer_of()
    writer.delta(0, Delta("é", [Token(1, b"\xc3", -0.5), Token(2, b"\xa9", -0.25)]))
    [(name, data)] = events_of(writer.delta(0, Delta("", [Token(3, b"", -1.0)])))
    logprobs = [
        {"token": "\ufffd", "logprob": -0.5, "bytes": [0xC3], "top_logprobs": []},
        {"token": "\ufffd", "logprob": -0.25, "bytes": [0xA9], "top_logprobs": []},
        {"token": "", "logprob": -1.0, "bytes": [], "top_logprobs": []},
    ]
    assert (name, json.loads(data)["logprobs"]) == ("response.output_text.delta", logprobs[2:])
    [done, part, item] = [json.loads(data) for _, data in events_of(writer.finish(0, outcome()))]
    assert done["logprobs"] == part["part"]["logprobs"] == item["item"]["content"][0]["logprobs"] == logprobs


def test_an_answer_cut_by_its_limit_is_incomplete_with_the_reason() -> None:
    *_, (name, data) = stream(writer_of(), ["Ein"], "length")
    response = json.loads(data)["response"]
    assert (name, response["status"]) == ("response.incomplete", "incomplete")
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"][0]["status"] == "incomplete"


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_a_call_that_was_cut_is_incomplete_for_either_finish_reason(reason: FinishReason) -> None:
    *_, (_, data) = stream(writer_of(ToolChoice(mode="auto")), [CALLS[:-2]], reason)
    calls = json.loads(data)["response"]["output"]
    assert [(call["arguments"], call["status"]) for call in calls] == [('{"a": 1}', "completed"), ("{}", "completed")]
    *_, (_, data) = stream(writer_of(ToolChoice(mode="auto")), [CALLS[:-3]], reason)
    calls = json.loads(data)["response"]["output"]
    assert [(call["arguments"], call["status"]) for call in calls] == [('{"a": 1}', "completed"), ("{", "incomplete")]


@pytest.mark.parametrize("choice", [None, ToolChoice(mode="auto")])
def test_an_answer_without_tokens_is_an_empty_message(choice: ToolChoice | None) -> None:
    *_, (_, data) = stream(writer_of(choice), [])
    [message] = json.loads(data)["response"]["output"]
    assert message["content"] == [{"type": "output_text", "annotations": [], "logprobs": [], "text": ""}]


def test_text_before_and_after_calls_is_an_item_each_in_order() -> None:
    *_, (_, data) = stream(writer_of(ToolChoice(mode="auto")), [f"Moment.{CALLS}Fertig."])
    output = json.loads(data)["response"]["output"]
    assert [item["type"] for item in output] == ["message", "function_call", "function_call", "message"]
    assert [item["id"] for item in output] == ["msg_70", "fc_71", "fc_72", "msg_73"]
    assert output[3]["content"][0]["text"] == "Fertig."


@pytest.mark.parametrize("begun", [False, True])
def test_a_stream_that_fails_ends_with_the_output_so_far(begun: bool) -> None:
    writer = writer_of()
    writer.start()
    if begun:
        writer.delta(0, Delta("Ein"))
    [(name, data)] = events_of(writer.error(EngineFailed("It broke.")))
    response = json.loads(data)["response"]
    assert (name, response["status"]) == ("response.failed", "failed")
    assert response["error"] == {"code": "server_error", "message": "It broke."}
    assert [item["status"] for item in response["output"]] == ["incomplete"] * begun


@pytest.fixture(scope="module")
def new_tools_writer(mixtral: ServedModel) -> Callable[[], ReplyWriter]:
    """Makes the writer of a request with tools."""
    tools = [{"type": "function", "name": name} for name in "fg"]
    body = ResponsesRequest.model_validate({"model": "m", "input": "Hi", "tools": tools})
    reply = Reply(id="resp_0", created=1, model="m")
    return lambda: to_responses_job(body, mixtral, reply, seed=0).writer


TEXTS = ["", "Ein naïves café — 你好 🧑\u200d🚀", CALLS, f"Hm. {CALLS}", "[TOOL_CALLS] nothing", "a [TOOL_CALL b"]
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


@settings(deadline=None)
@given(st.sampled_from(TEXTS), st.data())
def test_stream_and_json_body_are_equal_however_the_tokens_are_divided(
    mixtral: ServedModel, new_tools_writer: Callable[[], ReplyWriter], text: str, data: st.DataObject
) -> None:
    token_ids = mixtral.tokenizer.encode_text(text, add_special_tokens=False)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(token_ids)))) | {0, len(token_ids)})
    params = SamplingParams(max_tokens=100, temperature=0, top_p=1, seed=0)
    request = GenerationRequest(prompt_token_ids=[1], sampling_params=params, end_tokens=EndTokens(end_id=2, pad_id=2))
    decoder = AnswerDecoder(request, mixtral.tokenizer.bytes_of(skip_special_tokens=True), with_tokens=False)
    deltas = [decoder.feed(TokenChunk(token_ids[a:b])) for a, b in pairwise(cuts)]
    deltas.append(decoder.finish())
    writer = new_tools_writer()
    body = writer.start() + b"".join(writer.delta(0, delta) for delta in deltas)
    body += writer.finish(0, decoder.outcome) + writer.end([decoder.outcome])
    events = [json.loads(data) for _, data in events_of(body)]
    for number, event in enumerate(events):
        assert event["sequence_number"] == number
        EVENT.validate_python(event, strict=True)
    answer = Answer(text="".join(delta.text for delta in deltas), tokens=(), outcome=decoder.outcome)
    json_body = orjson.loads(new_tools_writer().complete([answer]))
    assert without_call_ids(events[-1]["response"]) == without_call_ids(json_body)
    assert rebuilt(events) == [
        item["content"][0]["text"] if item["type"] == "message" else item["arguments"] for item in json_body["output"]
    ]


def rebuilt(events: Sequence[dict[str, Any]]) -> list[str]:
    """Texts and arguments, joined from the deltas."""
    items: dict[int, str] = {}
    for event in events:
        if event["type"] == "response.output_item.added":
            assert event["output_index"] == len(items)
            items[event["output_index"]] = ""
        elif event["type"].endswith(".delta"):
            items[event["output_index"]] += event["delta"]
    return [*items.values()]


def without_call_ids(response: dict[str, Any]) -> dict[str, Any]:
    return response | {"output": [{**item, "call_id": None} for item in response["output"]]}
