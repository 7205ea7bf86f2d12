"""JSON allows numbers, nesting and sizes that Python or the engine do not: these are a 400, never a 500."""

import json
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, ValidationError

from frontend.openai.chat.types import ChatCompletionRequest
from frontend.openai.responses.types import ResponsesRequest
from frontend.text.tokenizer import Tokenizer
from tests.frontend.conftest import CHAT, MODEL, body, error_of

COMPLETIONS, RESPONSES = "/v1/completions", "/v1/responses"

DIGITS = "9" * 5000
"""More than Python converts to an integer."""


def send(http: httpx.Client, field: str, raw_value: str) -> httpx.Response:
    content = f'{json.dumps(body())[:-1]},"{field}":{raw_value}}}'
    return http.post(CHAT, content=content, headers={"content-type": "application/json"})


@pytest.mark.parametrize("field", ["max_tokens", "temperature", "seed", "stop", "unknown"])
@pytest.mark.parametrize("raw_value", ["[" * 90_000 + "]" * 90_000, '{"a":' * 20_000 + "1" + "}" * 20_000, DIGITS])
def test_unreadable_json_is_400_in_any_field(http: httpx.Client, field: str, raw_value: str) -> None:
    error = error_of(send(http, field, raw_value), 400)
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("field", "raw_value"),
    [
        ("max_tokens", "1e400"),
        ("max_tokens", "-1"),
        ("temperature", "1e400"),
        ("temperature", "-1e400"),
        ("temperature", "-0.1"),
        ("top_p", "Infinity"),
        ("top_k", str(2**40)),
        ("seed", str(2**64)),
        ("presence_penalty", "-1e308"),
        ("repetition_penalty", "1e308"),
        ("min_tokens", "9" * 30),
        ("max_tokens", "9" * 4300),
        ("max_completion_tokens", "9" * 4300),
        ("truncate_prompt_tokens", "9" * 4300),
        ("repetition_penalty", "1e-46"),
        ("top_p", "1e-46"),
    ],
)
def test_number_out_of_range_is_400_and_names_the_field(http: httpx.Client, field: str, raw_value: str) -> None:
    assert error_of(send(http, field, raw_value), 400)["param"] == field


def test_more_tokens_than_any_context_has_are_400(http: httpx.Client) -> None:
    assert error_of(send(http, "max_tokens", str(2**62)), 400)["code"] == "context_length_exceeded"


@pytest.mark.parametrize("raw_value", ["[" * 150 + "]" * 150, "1e999999", "9" * 4000])
def test_unknown_field_may_have_any_readable_value(http: httpx.Client, raw_value: str) -> None:
    assert send(http, "unknown", raw_value).status_code == 200


MESSAGES = '[{"role":"user","content":"a"}'


@pytest.mark.parametrize(
    ("path", "raw", "param"),
    [
        (CHAT, '{"messages":[' + "1," * 90_000 + "1]}", "messages[0]"),
        (CHAT, '{"messages":[' + "{}," * 30_000 + "1]}", "messages[0].role"),
        (CHAT, '{"messages":[{"role":"user","content":[' + "1," * 90_000 + "1]}]}", "messages[0].content[0]"),
        (CHAT, f'{{"messages":{MESSAGES}],"stop":[' + "1," * 90_000 + "1]}", "stop[0]"),
        (CHAT, f'{{"messages":{MESSAGES}],"guided_choice":[' + "1," * 90_000 + "1]}", "guided_choice[0]"),
        (CHAT, f'{{"messages":{MESSAGES}],"tools":[' + "1," * 90_000 + "1]}", "tools[0]"),
        (COMPLETIONS, '{"prompt":[' + "[]," * 30_000 + "1]}", "prompt"),
        (RESPONSES, '{"input":[' + "{}," * 30_000 + "1]}", "input[0].role"),
        ("/tokenize", '{"messages":[' + "1," * 90_000 + "1]}", "messages[0]"),
        ("/detokenize", '{"tokens":[' + '"",' * 60_000 + "1]}", "tokens[0]"),
    ],
)
def test_first_of_many_errors_is_reported(http: httpx.Client, path: str, raw: str, param: str) -> None:
    raw = raw.replace("{", f'{{"model":"{MODEL}",', 1)
    assert error_of(http.post(path, content=raw, headers={"content-type": "application/json"}), 400)["param"] == param


def test_a_list_that_is_wrong_has_one_error() -> None:
    """Pydantic would build an error for each element, and each costs more than the element."""
    wrong = [1] * 1000
    conversations: list[list[Any]] = [wrong, [{"role": "user", "content": wrong}], [{}] * 1000]
    for messages in conversations:
        assert errors_in(ChatCompletionRequest, body(messages=messages)) == 1
    for field in ("stop", "stop_token_ids", "tools", "guided_choice"):
        assert errors_in(ChatCompletionRequest, body(**{field: [None] * 1000})) == 1
    for field in ("logit_bias", "metadata"):
        names = {str(number): None for number in range(2000)}
        assert errors_in(ResponsesRequest, {"model": "m", "input": "a", field: names}) == 1


def errors_in(body_type: type[BaseModel], given: dict[str, Any]) -> int:
    with pytest.raises(ValidationError) as raised:
        body_type.model_validate_json(json.dumps(given))
    return raised.value.error_count()


def test_more_messages_than_the_limit_are_400(http: httpx.Client) -> None:
    messages = [{"role": "user", "content": "a"}] * 4097
    error = error_of(http.post(CHAT, json=body(messages=messages)), 400)
    assert error["message"] == "Invalid `messages`: List should have at most 4096 items after validation, not 4097."


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "ab " * 30_000}]}, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": "ab " * 30}] * 1000}, "messages"),
        (COMPLETIONS, {"prompt": "ab " * 30_000}, "prompt"),
        (COMPLETIONS, {"prompt": ["a", "ab " * 30_000]}, "prompt"),
        (RESPONSES, {"input": "ab " * 30_000}, "input"),
        (RESPONSES, {"input": "a", "instructions": "ab " * 30_000}, "input"),
    ],
)
def test_text_that_cannot_fit_is_refused_before_it_is_tokenized(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch, path: str, fields: dict[str, Any], param: str
) -> None:
    monkeypatch.setattr(Tokenizer, "escape_special_tokens", lambda *_: pytest.fail("escaped"))
    error = error_of(http.post(path, json={"model": MODEL, **fields}), 400)
    assert (error["code"], error["param"]) == ("context_length_exceeded", param)
    assert error["message"].startswith("This model's maximum context length is 4096 tokens. However, you requested ")
    assert " tokens or more in the messages, " in error["message"]


def test_text_that_is_truncated_may_be_longer_than_the_context(http: httpx.Client) -> None:
    messages = [{"role": "user", "content": "ab " * 30_000}]
    usage = http.post(CHAT, json=body(messages=messages, truncate_prompt_tokens=-1, max_tokens=5)).json()["usage"]
    assert usage["prompt_tokens"] == 4091


@pytest.mark.parametrize("path", ["/tokenize", f"{CHAT}/render"])
def test_text_longer_than_the_context_is_counted(http: httpx.Client, path: str) -> None:
    text = "ab " * 30_000
    answer = http.post(path, json={"prompt": text} if path == "/tokenize" else body(messages=[user(text)])).json()
    assert len(answer.get("tokens") or answer["prompt_token_ids"]) > 30_000


def test_more_tokens_than_are_counted_are_400(http: httpx.Client) -> None:
    prompts = ["❦" * 7000] * 7
    error = error_of(http.post(COMPLETIONS, json={"model": MODEL, "prompt": prompts}), 400)
    assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt")


def test_conversation_of_a_thousand_messages_is_accepted(http: httpx.Client) -> None:
    messages = [{"role": role, "content": [{"type": "text", "text": "a"}]} for role in ("user", "assistant")] * 500
    assert http.post(f"{CHAT}/render", json=body(messages=messages)).status_code == 200


def test_largest_logit_bias_is_accepted(http: httpx.Client) -> None:
    assert http.post(CHAT, json=body(logit_bias={str(token): 1 for token in range(1024)})).status_code == 200


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}
