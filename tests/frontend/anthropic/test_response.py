"""Replies in Anthropic's API: blocks of answers that call tools, whole and streamed, and how they ended."""

import json
from typing import Any

import pytest

from frontend.anthropic.response import MessagesWriter
from frontend.generation import Delta, Ending, FinishReason, Outcome, Usage
from frontend.openai.job import Answer
from frontend.openai.reply import Reply
from frontend.text.tool_parser import ToolCallParser
from frontend.text.tools import ToolChoice

AUTO = ToolChoice(mode="auto")


def outcome(finish: FinishReason, stop: str | int | None = None) -> Outcome:
    usage = Usage(num_prompt_tokens=3, num_completion_tokens=8)
    return Outcome(ending=Ending(finish_reason=finish, stop_reason=stop), usage=usage)


def writer() -> MessagesWriter:
    return MessagesWriter(
        Reply(id="msg_0", created=0, model="m"), num_prompt_tokens=3, parser=ToolCallParser(AUTO, lambda: "toolu_0")
    )


def whole(text: str, ended: Outcome) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(writer().complete([Answer(text=text, tokens=(), outcome=ended)]))
    return message


def streamed(text: str, ended: Outcome) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The blocks that the events of a stream build, with the text of `input`; and the `delta` of the message."""
    stream = writer()
    body = b"".join([*[stream.delta(0, Delta(character)) for character in text], stream.finish(0, ended)])
    *events, last = [json.loads(event.partition("data: ")[2]) for event in body.decode().split("\n\n")[:-1]]
    blocks: list[dict[str, Any]] = []
    for event in events:
        if event["type"] == "content_block_start":
            assert event["index"] == len(blocks)
            blocks.append(event["content_block"] | ({"input": ""} if "input" in event["content_block"] else {}))
        elif event["type"] == "content_block_delta":
            delta = event["delta"]
            name = "text" if delta["type"] == "text_delta" else "input"
            blocks[event["index"]][name] += delta.get("text") or delta["partial_json"]
    return blocks, last["delta"]


def call(arguments: Any, name: str = "f") -> dict[str, Any]:
    return {"type": "tool_use", "id": "toolu_0", "name": name, "input": arguments}


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("", []),
        ("a b", [{"type": "text", "text": "a b"}]),
        ('[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}]', [call({"a": 1})]),
        (
            'a [TOOL_CALLS] [{"name": "f", "arguments": {}}, {"name": "g", "arguments": {"b": [2]}}] b',
            [{"type": "text", "text": "a "}, call({}), call({"b": [2]}, "g"), {"type": "text", "text": " b"}],
        ),
    ],
)
def test_the_stream_has_the_blocks_of_the_whole_answer(text: str, content: list[Any]) -> None:
    answer = whole(text, outcome("stop"))
    blocks, last = streamed(text, outcome("stop"))
    assert answer["content"] == content
    assert [block | {"input": json.loads(block["input"])} if "input" in block else block for block in blocks] == content
    reason = "tool_use" if "[TOOL_CALLS]" in text else "end_turn"
    assert last["stop_reason"] == answer["stop_reason"] == reason


@pytest.mark.parametrize(
    ("ended", "reason", "sequence"),
    [
        (outcome("stop"), "end_turn", None),
        (outcome("stop", "x"), "stop_sequence", "x"),
        (outcome("stop", 5), "end_turn", None),
        (outcome("length"), "max_tokens", None),
    ],
)
def test_the_reason_of_an_answer_without_calls(ended: Outcome, reason: str, sequence: str | None) -> None:
    answer, (_, last) = whole("a", ended), streamed("a", ended)
    assert (answer["stop_reason"], answer["stop_sequence"]) == (reason, sequence)
    assert last == {"stop_reason": reason, "stop_sequence": sequence}


@pytest.mark.parametrize(
    ("arguments", "complete"),
    [('{"a": "b", "c": "d', {"a": "b"}), ('{"a": [1, {"b": tru', {"a": [1, {}]}), ("{", {})],
)
def test_a_call_that_is_cut_has_the_values_that_are_complete(arguments: str, complete: Any) -> None:
    text = f'[TOOL_CALLS] [{{"name": "f", "arguments": {arguments}'
    for ended, reason in ((outcome("length"), "max_tokens"), (outcome("stop", "x"), "stop_sequence")):
        answer = whole(text, ended)
        assert (answer["content"], answer["stop_reason"]) == ([call(complete)], reason)
        blocks, last = streamed(text, ended)
        assert (blocks, last["stop_reason"]) == ([call(arguments)], reason)


def test_arguments_are_as_the_model_wrote_them() -> None:
    text = '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 123456789012345678901234567890, "b": 1.50}}]'
    written = writer().complete([Answer(text=text, tokens=(), outcome=outcome("stop"))])
    assert b'"input":{"a": 123456789012345678901234567890, "b": 1.50}' in written


@pytest.mark.parametrize("arguments", ["{a: 1}", '{"a" 1}', '{"a": NaN}'])
def test_a_call_whose_arguments_are_no_json_is_text(arguments: str) -> None:
    answer = whole(f'[TOOL_CALLS] [{{"name": "f", "arguments": {arguments}}}]', outcome("stop"))
    assert answer["content"] == [{"type": "text", "text": arguments}]
    assert answer["stop_reason"] == "end_turn"
