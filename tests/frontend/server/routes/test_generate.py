"""One order for every request: check, prompt, tokens, sampling parameters, compile, run."""

from typing import Any

import httpx
import pytest

from frontend.guided_decoding import Constraint, Guide, GuideCompiler
from tests.frontend.conftest import CHAT, MAX_QUEUE_LENGTH, MODEL, Running, body, error_of
from tests.frontend.fake_triton import Events, FakeTriton

COMPLETIONS, RESPONSES = "/v1/completions", "/v1/responses"
LONG = "Haus " * 5000
"""More tokens than the context of 4096."""

STRAY_RESULT = {"role": "tool", "content": "1", "tool_call_id": "a"}
FORMAT = {"response_format": {"type": "json_object"}}
TOOLS = {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required"}


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Constraint]:
    """Gets the constraints that reach the compiler."""
    seen: list[Constraint] = []
    compile_ = GuideCompiler.compile

    async def recording(guides: GuideCompiler, constraint: Constraint, caller: str) -> Guide:
        seen.append(constraint)
        return await compile_(guides, constraint, caller)

    monkeypatch.setattr(GuideCompiler, "compile", recording)
    return seen


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, body(**FORMAT)),
        (CHAT, body(**TOOLS)),
        (COMPLETIONS, {"model": MODEL, "prompt": "Hi", **FORMAT}),
        (RESPONSES, {"model": MODEL, "input": "Hi", "text": {"format": {"type": "json_object"}}}),
    ],
)
def test_a_body_that_is_accepted_compiles_once(
    http: httpx.Client, triton: FakeTriton, compiled: list[Constraint], path: str, fields: dict[str, Any]
) -> None:
    triton.script = [Events([[6004]])]
    assert http.post(path, json=fields).status_code == 200
    assert len(compiled) == 1
    assert triton.requests[0]["guided_decoding_guide_type"] == "ebnf_grammar"


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, body(best_of=2, **FORMAT), "best_of"),
        (CHAT, body(stream_options={"include_usage": True}, **FORMAT), "stream_options"),
        (CHAT, body(top_logprobs=3, **FORMAT), "top_logprobs"),
        (CHAT, body(max_tokens=5000, **FORMAT), "messages"),
        (CHAT, body(messages=[{"role": "user", "content": LONG}], **FORMAT), "messages"),
        (CHAT, body(messages=[{"role": "user", "content": LONG}], **TOOLS), "messages"),
        (CHAT, body(messages=[STRAY_RESULT], **TOOLS), "messages[0].tool_call_id"),
        (CHAT, body(stop_token_ids=[40000], **FORMAT), "stop_token_ids"),
        (CHAT, body(min_tokens=9, max_tokens=8, **FORMAT), "min_tokens"),
        (CHAT, body(n=MAX_QUEUE_LENGTH + 100, **FORMAT), "n"),
        (CHAT, body(guided_regex="a", **FORMAT), "guided_regex"),
        (COMPLETIONS, {"model": MODEL, "prompt": LONG, **FORMAT}, "messages"),
        (COMPLETIONS, {"model": MODEL, "prompt": "Hi", "suffix": "x", **FORMAT}, "suffix"),
        (RESPONSES, {"model": MODEL, "input": LONG, "text": {"format": {"type": "json_object"}}}, "input"),
        (RESPONSES, {"model": MODEL, "input": "Hi", "store": True, "guided_regex": "a"}, "store"),
    ],
)  # fmt: skip
def test_a_body_that_is_refused_or_does_not_fit_does_not_compile(
    http: httpx.Client, compiled: list[Constraint], path: str, fields: dict[str, Any], param: str
) -> None:
    error = error_of(http.post(path, json=fields), 400)
    assert error["param"] == param
    assert compiled == []


def test_a_full_queue_answers_before_anything_compiles(
    frontend: Running, http: httpx.Client, compiled: list[Constraint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frontend.admission, "num_running", 1000)
    assert error_of(http.post(CHAT, json=body(**FORMAT)), 429)["code"] == "rate_limit_exceeded"
    assert compiled == []
