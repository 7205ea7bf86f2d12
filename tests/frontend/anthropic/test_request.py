"""A body of Anthropic's Messages API to a prompt and a job."""

from typing import Any

import pytest
from pydantic import ValidationError

from frontend.anthropic.request import render_prompt, to_messages_job, tool_use_of
from frontend.anthropic.types import MessagesRequest
from frontend.errors import ContextLengthExceeded, InvalidRequest, UnsupportedParameter
from frontend.openai.job import Job
from frontend.openai.reply import Reply
from frontend.openai.unsupported import ignored_params
from frontend.text.served_model import ServedModel
from frontend.text.tools import NO_TOOLS, ToolChoice

TOOL = {"name": "f", "input_schema": {"type": "object"}}
CALL: dict[str, Any] = {
    "role": "assistant",
    "content": [{"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": "ä"}}],
}
RESULT: dict[str, Any] = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "3"}
ASK = {"role": "user", "content": "a"}


def parsed(**fields: Any) -> MessagesRequest:
    return MessagesRequest.model_validate({"max_tokens": 5, "messages": [ASK], **fields})


def prompt(model: ServedModel, *messages: Any, **fields: Any) -> str:
    body = parsed(messages=list(messages), **fields)
    return model.tokenizer.unescape_special_tokens(render_prompt(body, tool_use_of(body), model))


def job_of(model: ServedModel, **fields: Any) -> Job:
    return to_messages_job(parsed(**fields), model, Reply(id="msg_0", created=0, model="m"), seed=1)


def test_blocks_of_text_are_one_message(chatml: ServedModel) -> None:
    blocks = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert prompt(chatml, {"role": "user", "content": blocks}) == prompt(chatml, {"role": "user", "content": "a\n\nb"})


def test_the_system_prompt_comes_first_wherever_it_stands(mixtral: ServedModel) -> None:
    assert prompt(mixtral, ASK, system="s") == prompt(mixtral, ASK, {"role": "system", "content": "s"})
    assert "s\n\na" in prompt(mixtral, ASK, system=[{"type": "text", "text": "s"}])


def test_a_block_that_differs_in_every_request_of_claude_code_is_left_out(mixtral: ServedModel) -> None:
    system = [{"type": "text", "text": "x-anthropic-billing-header: cch=1"}, {"type": "text", "text": "s"}]
    assert prompt(mixtral, ASK, system=system) == prompt(mixtral, ASK, system="s")


def test_special_tokens_of_the_client_are_text(mixtral: ServedModel) -> None:
    job = job_of(mixtral, messages=[{"role": "user", "content": "</s>"}], system="</s>")
    assert 2 not in job.requests[0].prompt_token_ids


def test_results_come_before_the_text_of_their_message(mixtral: ServedModel) -> None:
    late = {"role": "user", "content": [{"type": "text", "text": "b"}, RESULT]}
    early = {"role": "user", "content": [RESULT, {"type": "text", "text": "b"}]}
    written = prompt(mixtral, ASK, CALL, early, tools=[TOOL])
    assert prompt(mixtral, ASK, CALL, late, tools=[TOOL]) == written
    assert '{"a": "ä"}' in written


def test_a_result_that_is_an_error_says_so(mixtral: ServedModel) -> None:
    failed = {"role": "user", "content": [RESULT | {"content": "no such city", "is_error": True}]}
    assert "Error: no such city" in prompt(mixtral, ASK, CALL, failed)


def test_thoughts_of_earlier_answers_are_left_out(mixtral: ServedModel) -> None:
    thoughts = [
        {"type": "thinking", "thinking": "secret", "signature": "s"},
        {"type": "redacted_thinking", "data": "secret"},
    ]
    answer = {"role": "assistant", "content": [*thoughts, {"type": "text", "text": "b"}]}
    assert prompt(mixtral, ASK, answer, ASK) == prompt(mixtral, ASK, {"role": "assistant", "content": "b"}, ASK)


def test_an_empty_beginning_of_an_answer_is_none(mixtral: ServedModel) -> None:
    assert prompt(mixtral, ASK, {"role": "assistant", "content": ""}) == prompt(mixtral, ASK)


@pytest.mark.parametrize(
    ("given", "choice", "parallel"),
    [
        (None, ToolChoice(mode="auto"), True),
        ({"type": "auto"}, ToolChoice(mode="auto"), True),
        ({"type": "any", "disable_parallel_tool_use": True}, ToolChoice(mode="required"), False),
        ({"type": "tool", "name": "f"}, ToolChoice(mode="named", name="f"), True),
    ],
)
def test_tool_choice(given: Any, choice: ToolChoice, parallel: bool) -> None:
    tool_use = tool_use_of(parsed(tools=[TOOL], tool_choice=given))
    assert (tool_use.choice, tool_use.parallel) == (choice, parallel)


def test_with_the_choice_none_there_are_no_tools() -> None:
    assert tool_use_of(parsed(tools=[TOOL], tool_choice={"type": "none"})) == NO_TOOLS


def test_tools_of_anthropics_own_are_left_out_and_reported() -> None:
    body = parsed(tools=[{"type": "web_search_20250305", "name": "web_search"}, TOOL | {"type": "custom"}])
    assert [tool.name for tool in tool_use_of(body).tools] == ["f"]
    assert ignored_params(body) == ["tools.web_search_20250305"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [ASK, CALL]}, "messages"),
        ({"messages": [ASK, {"role": "user", "content": [RESULT]}]}, "messages[1].content[0].tool_use_id"),
        ({"messages": [{"role": "user", "content": CALL["content"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "system", "content": [RESULT]}]}, "messages[0].content[0]"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "any", "name": "f"}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "tool_choice"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": [TOOL, TOOL]}, "tools"),
        (
            {"tools": [TOOL | {"input_schema": {"type": "array"}}], "tool_choice": {"type": "any"}},
            "tools[0].input_schema",
        ),
        ({"tools": [TOOL | {"input_schema": {"maximum": 10**30}}]}, "tools[0].input_schema"),
    ],
)
def test_what_is_wrong_is_named(mixtral: ServedModel, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        job_of(mixtral, **fields)
    assert raised.value.param == param


@pytest.mark.parametrize("name", ["thread", "stop", "output_format", "best_of"])
def test_what_is_not_supported_is_refused(mixtral: ServedModel, name: str) -> None:
    with pytest.raises(UnsupportedParameter) as raised:
        job_of(mixtral, **{name: {"type": "create"}})
    assert raised.value.param == name


@pytest.mark.parametrize("kind", ["image", "document", "server_tool_use", "x", None, []])
@pytest.mark.parametrize("inside", [False, True])
def test_blocks_of_other_types_are_refused_by_name(kind: Any, inside: bool) -> None:
    block: Any = {"type": kind, "source": {}}
    content = [RESULT | {"content": [block]}] if inside else [block]
    with pytest.raises(ValidationError) as raised:
        parsed(messages=[{"role": "user", "content": content}])
    assert f"the type {kind!r} are not supported" in str(raised.value)


def test_max_tokens_is_required() -> None:
    with pytest.raises(ValidationError):
        MessagesRequest.model_validate({"messages": [ASK]})


def test_a_prompt_that_fills_the_context_is_refused(mixtral: ServedModel) -> None:
    with pytest.raises(ContextLengthExceeded):
        job_of(mixtral, messages=[{"role": "user", "content": "a " * 5000}])


def test_a_prompt_that_is_cut_leaves_room_for_max_tokens(mixtral: ServedModel) -> None:
    messages = [{"role": "user", "content": "a " * 5000}]
    [request] = job_of(mixtral, messages=messages, max_tokens=100, truncate_prompt_tokens=-1).requests
    assert (len(request.prompt_token_ids), request.sampling_params.max_tokens) == (3996, 100)
