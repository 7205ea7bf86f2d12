"""Chat's replies to an answer that calls functions and that `max_tokens` cut."""

import json
from typing import Any

import pytest

from frontend.generation import Delta, Ending, Outcome, Usage
from frontend.openai.chat.response import ChatWriter
from frontend.openai.job import Answer
from frontend.openai.reply import Reply
from frontend.text.tool_parser import ToolCallParser
from frontend.text.tools import ToolChoice

REQUIRED = ToolChoice(mode="required")
CUT = Outcome(
    ending=Ending(finish_reason="length", stop_reason=None), usage=Usage(num_prompt_tokens=3, num_completion_tokens=8)
)


def writer() -> ChatWriter:
    return ChatWriter(
        Reply(id="cmpl-0", created=0, model="m"),
        num_choices=1,
        num_prompt_tokens=3,
        tool_choice=REQUIRED,
        parsers=[ToolCallParser(REQUIRED, lambda: "call_0")],
    )


def whole(text: str) -> dict[str, Any]:
    choice: dict[str, Any] = json.loads(writer().complete([Answer(text=text, tokens=(), outcome=CUT)]))["choices"][0]
    return choice


def streamed(text: str) -> list[dict[str, Any]]:
    stream = writer()
    body = b"".join([*[stream.delta(0, Delta(character)) for character in text], stream.finish(0, CUT)])
    return [json.loads(event[6:])["choices"][0] for event in body.decode().split("\n\n")[:-1]]


@pytest.mark.parametrize("text", [' [{"name": "get_weather"', " [", ""])
def test_the_syntax_of_a_cut_call_is_not_content(text: str) -> None:
    choice = whole(text)
    assert choice["message"] == {"role": "assistant", "content": ""}
    assert choice["finish_reason"] == "length"
    [last] = streamed(text)
    assert (last["delta"], last["finish_reason"]) == ({}, "length")


def test_what_is_complete_before_the_cut_becomes_calls() -> None:
    text = ' [{"name": "f", "arguments": {"a": 1}}, {"name": "g'
    function = {"name": "f", "arguments": '{"a": 1}'}
    choice = whole(text)
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [{"id": "call_0", "type": "function", "function": function}]
    assert choice["finish_reason"] == "length"
    deltas = [choice["delta"] for choice in streamed(text)]
    assert not any("content" in delta for delta in deltas)
    assert streamed(text)[-1]["finish_reason"] == "length"
