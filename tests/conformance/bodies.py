"""Request bodies to fuzz the API with, as hypothesis strategies: most are nearly valid, some are not even JSON."""

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st
from pydantic import BaseModel

from frontend.anthropic.types import CountTokensRequest, MessagesRequest
from frontend.openai.chat.types import ChatCompletionRequest
from frontend.openai.completions.types import CompletionRequest
from frontend.openai.responses.types import ResponsesRequest
from frontend.openai.tokenize.types import DetokenizeRequest, TokenizeRequest
from frontend.openai.unsupported import UNSUPPORTED
from tests.frontend.conftest import MODEL

MESSAGES = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": ""},
]
PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}}}
FUNCTION = {"name": "f", "description": "d", "parameters": PARAMETERS}

VALID: Mapping[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": MODEL, "messages": MESSAGES},
    "/v1/completions": {"model": MODEL, "prompt": "Hi"},
    "/v1/responses": {"model": MODEL, "input": "Hi"},
    "/v1/messages": {"model": MODEL, "max_tokens": 20, "messages": MESSAGES},
    "/v1/messages/count_tokens": {"model": MODEL, "messages": MESSAGES},
    "/invocations": {"model": MODEL, "prompt": "Hi"},
    "/v1/chat/completions/render": {"model": MODEL, "messages": MESSAGES},
    "/tokenize": {"prompt": "Hi"},
    "/detokenize": {"tokens": [1, 733]},
}
"""Each route that takes a body, with a valid one."""

_TYPES: Mapping[str, type[BaseModel]] = {
    "/v1/chat/completions": ChatCompletionRequest,
    "/v1/completions": CompletionRequest,
    "/v1/responses": ResponsesRequest,
    "/v1/messages": MessagesRequest,
    "/v1/messages/count_tokens": CountTokensRequest,
    "/invocations": CompletionRequest,
    "/v1/chat/completions/render": ChatCompletionRequest,
    "/tokenize": TokenizeRequest,
    "/detokenize": DetokenizeRequest,
}


def _fields_of(body: type[BaseModel]) -> set[str]:
    """The names of its fields that a client sends."""
    return {field.alias or name for name, field in body.model_fields.items()}


_NAMES = sorted({name for body in _TYPES.values() for name in _fields_of(body)} | UNSUPPORTED.keys())
_INNER_NAMES = (
    "role", "content", "type", "text", "name", "tool_calls", "tool_call_id", "id", "function", "arguments",
    "parameters", "strict", "schema", "json_schema", "json", "regex", "choice", "grammar", "include_usage",
    "continuous_usage_stats", "properties", "required", "items", "anyOf", "$ref", "enum", "pattern", "minimum",
    "maxLength", "0", "5", "99999", "input_schema", "input", "tool_use_id", "is_error", "thinking", "source",
)  # fmt: skip
_STRINGS = (
    "", "\x00", "\ud800", "\udfff\ud800", "\ufdd0" + "1" + "\ufdd1", "</s>", "[INST]", "[TOOL_CALLS]", "🚀", "a" * 300,
    "auto", "none", "required", "text", "json_object", "json_schema", "function", "user", "assistant", "tool", "system",
    "object", "{{ 1/0 }}", "(a+)+b", "root ::= root", "9" * 4400, "²", "１", "\u2028", MODEL, "gpt-4",
)  # fmt: skip
_ENCODABLE = [string for string in _STRINGS if "\ud800" not in string]
_NUMBERS = (
    0, 1, -1, 2, 5, 16, 17, 128, 129, 257, 4095, 4096, 2**31 - 1, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**400, 0.0,
    -0.0, 0.1, 0.999, 1.0, 1e-6, 1e-320, 1e308, float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
_NEARLY_VALID = (
    MESSAGES,
    [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
    [{"role": "assistant", "content": None, "tool_calls": [{"id": "a", "type": "function", "function": FUNCTION}]}],
    [{"role": "tool", "content": "3", "tool_call_id": "a"}],
    [{"type": "function", "function": FUNCTION}],
    {"type": "function", "function": {"name": "f"}},
    [{"name": "f", "input_schema": PARAMETERS}, {"type": "bash_20250124", "name": "bash"}],
    [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "x"}}]}],
    [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text"}]}]}],
    {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "integer"}}},
    {"type": "json_object"},
    {"type": "json_object", "schema": {"type": "integer"}},
    {"include_usage": True, "continuous_usage_stats": True},
    {"5": 100, "31999": -100},
    ["a", "b"],
    [[1, 2], [3]],
    [1, 31999, 32000],
)

_scalars = (
    st.none()
    | st.booleans()
    | st.sampled_from(_NUMBERS)
    | st.sampled_from(_STRINGS)
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=20)
)
_values = (
    st.sampled_from(_NEARLY_VALID)
    | _scalars
    | st.recursive(
        _scalars | st.sampled_from(_NEARLY_VALID),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(_INNER_NAMES) | st.text(max_size=5), inner, max_size=4)
        ),
        max_leaves=8,
    )
)
_names = st.sampled_from(_NAMES) | st.text(st.characters(), max_size=10)


_texts = st.text(max_size=20) | st.sampled_from(_ENCODABLE)
_schemas = st.sampled_from(
    [
        PARAMETERS,
        {"type": "integer", "minimum": 3},
        {"enum": ["a", 1, None]},
        {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/a"}]}}},
        {"type": "string", "pattern": "^(a|b)+$"},
        {"type": "string", "format": "date-time"},
        {"not": {}},
        {},
    ]
)
_roles = st.sampled_from(["system", "developer", "user", "assistant", "user", "assistant"])
_parts = st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": _texts}), max_size=3)
_messages = st.lists(st.fixed_dictionaries({"role": _roles, "content": _texts | _parts}), min_size=1, max_size=5)
_tool_call = st.fixed_dictionaries({"arguments": st.sampled_from(["{}", "", "[]", '{"a": 1}'])}).map(
    lambda more: [
        {"role": "user", "content": "?"},
        {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", **more}}]},
        {"role": "tool", "tool_call_id": "a", "content": "3"},
    ]
)
_items = st.lists(
    st.fixed_dictionaries({"role": _roles, "content": _texts})
    | st.fixed_dictionaries({"type": st.just("function_call"), "call_id": st.sampled_from("ab"), "name": st.just("f")})
    | st.fixed_dictionaries(
        {"type": st.just("function_call_output"), "call_id": st.sampled_from("ab"), "output": _texts},
        optional={"id": _texts, "status": st.just("completed")},
    ),
    max_size=4,
)
_tools = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from("fgh"), "parameters": _schemas, "description": _texts}),
    max_size=3,
).map(lambda functions: [{"type": "function", "function": function} for function in functions])
_block_call = st.fixed_dictionaries({"content": _texts | _parts}, optional={"is_error": st.booleans()}).map(
    lambda more: [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {"a": 1}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", **more}]},
    ]
)
_choices = st.sampled_from(["auto", "any", "none", "tool"]).map(
    lambda kind: {"type": kind, "name": "f"} if kind == "tool" else {"type": kind}
)
_TYPICAL: Mapping[str, st.SearchStrategy[Any]] = {
    "input": _texts | _items,
    "instructions": _texts,
    "max_output_tokens": st.integers(1, 4200),
    "text": st.sampled_from([{}, {"format": {"type": "json_schema", "name": "a", "schema": PARAMETERS}}]),
    "include": st.sampled_from([[], ["message.output_text.logprobs"], ["reasoning.encrypted_content"], ["x"]]),
    "reasoning": st.dictionaries(st.sampled_from(["effort", "summary"]), _texts, max_size=1),
    "metadata": st.dictionaries(_texts, _texts, max_size=2),
    "messages": _messages | _tool_call | _block_call,
    "system": _texts | _parts,
    "stop_sequences": st.lists(_texts, max_size=4),
    "thinking": st.sampled_from([{"type": "enabled", "budget_tokens": 1024}, {}]),
    "output_config": st.sampled_from(
        [{}, {"effort": "low"}, {"format": {"type": "json_schema", "schema": PARAMETERS}}]
    ),
    "prompt": _texts | st.lists(_texts, max_size=3) | st.lists(st.integers(0, 32100), max_size=5),
    "tokens": st.lists(st.integers(0, 32100), max_size=10),
    "model": st.sampled_from([MODEL, "mixtral", "gpt-4"]),
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0, 1),
    "min_p": st.floats(0, 1),
    "top_k": st.integers(-1, 100),
    "seed": st.integers(-(2**63), 2**64 - 1),
    "max_tokens": st.integers(1, 4200),
    "max_completion_tokens": st.integers(1, 4200),
    "min_tokens": st.integers(0, 30),
    "truncate_prompt_tokens": st.integers(-1, 20),
    "n": st.integers(1, 8),
    "stop": _texts | st.lists(_texts, max_size=4),
    "stop_token_ids": st.lists(st.sampled_from([0, 2, 6004, 21209, 32000]), max_size=3),
    "logit_bias": st.dictionaries(st.integers(0, 32010).map(str), st.floats(-100, 100), max_size=3),
    "presence_penalty": st.floats(-2, 2),
    "frequency_penalty": st.floats(-2, 2),
    "repetition_penalty": st.floats(0, 2),
    "stream_options": st.dictionaries(st.sampled_from(["include_usage", "continuous_usage_stats"]), st.booleans()),
    "response_format": _schemas.map(
        lambda schema: {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    )
    | st.sampled_from([{"type": "json_object"}, {"type": "text"}]),
    "guided_json": _schemas | _schemas.map(json.dumps),
    "guided_regex": st.sampled_from(["a+", "(a|b)*", "[", "\\d{3}", "(?=a)", "(a*)*b"]) | _texts,
    "guided_choice": st.lists(_texts, max_size=4),
    "guided_grammar": st.sampled_from(['root ::= "a" root | ""', "root ::= root", "x ::= y"]) | _texts,
    "structured_outputs": st.dictionaries(st.sampled_from(["regex", "grammar"]), _texts, max_size=1),
    "tools": _tools
    | _schemas.map(lambda schema: [{"name": "f", "input_schema": schema}, {"type": "bash_20250124", "name": "bash"}]),
    "tool_choice": st.sampled_from(["none", "auto", "required", {"type": "function", "function": {"name": "f"}}])
    | _choices,
    "chat_template_kwargs": st.dictionaries(st.sampled_from(["a", "messages", "tools", "chat_template"]), _scalars),
    "logprobs": st.booleans() | st.integers(0, 5),
    "top_logprobs": st.integers(0, 1),
}
"""Values that mostly fit the type of their field. A field that is not listed gets a boolean."""


@st.composite
def bodies(draw: st.DrawFn, path: str) -> bytes:
    """A valid body with some fields changed, as JSON. One in five lacks a field, is another value, or is damaged."""
    body: Any = dict(VALID[path])
    for name in draw(st.lists(st.sampled_from(sorted(_fields_of(_TYPES[path]))), max_size=4)):
        body[name] = draw(_TYPICAL.get(name, st.booleans()))
    for name in draw(st.lists(_names, max_size=1)):
        body[name] = draw(_values)
    case = draw(st.integers(0, 19))
    if case == 0:
        body = draw(_values)
    elif case == 1:
        del body[draw(st.sampled_from(sorted(body)))]
    content = json.dumps(body, ensure_ascii=case % 2 == 0).encode("utf-8", "surrogatepass")
    return draw(_damaged(content)) if case in (2, 3) else content


@st.composite
def _damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The content cut off, with bytes inserted, repeated, or after a UTF-16 byte order mark."""
    at = draw(st.integers(0, len(content)))
    middle = draw(st.binary(max_size=4) | st.sampled_from([b"[" * 500, b'{"a":' * 500, b"1" * 5000, b"\xed\xa0\x80"]))
    damages = [content[:at], content[:at] + middle + content[at:], content + content, b"\xff\xfe" + content]
    return draw(st.sampled_from(damages))
