"""A tool that is not strict and whose schema cannot be guaranteed: the answer is given, and a header names the tool."""

from typing import Any

import httpx
import pytest

from tests.frontend.conftest import CHAT, MODEL, body, error_of, messages_error_of
from tests.frontend.fake_triton import Events, FakeTriton

RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
SCHEMA = {"type": "object", "properties": {"tags": {"type": "array", "contains": {"const": "a"}}}}
PLAIN = {"type": "object", "properties": {}}


def body_of(path: str, *, strict: bool = False, stream: bool = False) -> dict[str, Any]:
    """A body with a tool that cannot be guided, `f`, and one that can, `g`."""
    tools: list[dict[str, Any]] = [
        {"name": "f", "parameters": SCHEMA, "strict": strict},
        {"name": "g", "parameters": PLAIN},
    ]
    if path == CHAT:
        return body(tools=[{"type": "function", "function": tool} for tool in tools], stream=stream)
    if path == RESPONSES:
        typed = [{"type": "function", **tool} for tool in tools]
        return {"model": MODEL, "input": "Hi", "tools": typed, "stream": stream}
    renamed = [{"input_schema": tool.pop("parameters"), **tool} for tool in tools]
    messages = [{"role": "user", "content": "Hi"}]
    return {"model": MODEL, "max_tokens": 9, "messages": messages, "tools": renamed, "stream": stream}


@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])
@pytest.mark.parametrize("stream", [False, True])
def test_the_tool_is_named_in_a_header(http: httpx.Client, triton: FakeTriton, path: str, stream: bool) -> None:
    triton.script = [Events([[6004]])]
    response = http.post(path, json=body_of(path, stream=stream))
    assert (response.status_code, response.headers.get("x-unguided-tools")) == (200, "f")
    assert triton.requests[0]["guided_decoding_guide_type"] == "ebnf_grammar"


@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])
def test_a_strict_tool_is_refused_by_name(http: httpx.Client, path: str) -> None:
    response = http.post(path, json=body_of(path, strict=True))
    error = messages_error_of(response, 400) if path == MESSAGES else error_of(response, 400)
    assert "`contains` is not supported" in error["message"]
    assert "tools[0]" in error["message"]


def test_without_such_a_tool_there_is_no_header(http: httpx.Client, triton: FakeTriton) -> None:
    triton.script = [Events([[6004]])]
    fields = body_of(CHAT)
    del fields["tools"][0]
    assert "x-unguided-tools" not in http.post(CHAT, json=fields).headers
