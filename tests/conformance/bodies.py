"""Request bodies that nobody should send, as hypothesis strategies: near to what is right, and far from it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from frontend.parameters import REFUSED
from frontend.protocol.chat import ChatCompletionRequest
from frontend.protocol.completions import CompletionRequest
from frontend.protocol.tokens import DetokenizeRequest, TokenizeRequest
from tests.frontend.conftest import MODEL

MESSAGES = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": ""},
]
FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}

RIGHT: Mapping[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": MODEL, "messages": MESSAGES},
    "/v1/completions": {"model": MODEL, "prompt": "Hi"},
    "/v1/chat/completions/render": {"model": MODEL, "messages": MESSAGES},
    "/tokenize": {"prompt": "Hi"},
    "/detokenize": {"tokens": [1, 733]},
}
"""Each endpoint that takes a body, and a body that it takes."""

_NAMES = sorted(
    {
        name
        for body in (ChatCompletionRequest, CompletionRequest, TokenizeRequest, DetokenizeRequest)
        for name in body.model_fields
    }
    | REFUSED.keys()
)
_INNER_NAMES = (
    "role", "content", "type", "text", "name", "tool_calls", "tool_call_id", "id", "function", "arguments", "parameters",
    "strict", "schema", "json_schema", "json", "regex", "choice", "grammar", "include_usage", "continuous_usage_stats",
    "properties", "required", "items", "anyOf", "$ref", "enum", "pattern", "minimum", "maxLength", "0", "5", "99999",
)  # fmt: skip
_STRINGS = (
    "", "\x00", "\ud800", "\udfff\ud800", "\ufdd0" + "1" + "\ufdd1", "</s>", "[INST]", "[TOOL_CALLS]", "🚀", "a" * 300,
    "auto", "none", "required", "text", "json_object", "json_schema", "function", "user", "assistant", "tool", "system",
    "object", "{{ 1/0 }}", "(a+)+b", "root ::= root", "9" * 4400, "²", "１", "\u2028", MODEL, "gpt-4",
)  # fmt: skip
_NUMBERS = (
    0, 1, -1, 2, 5, 16, 17, 128, 129, 257, 4095, 4096, 2**31 - 1, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**400, 0.0,
    -0.0, 0.1, 0.999, 1.0, 1e-6, 1e-320, 1e308, float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
_ALMOST_RIGHT = (
    MESSAGES,
    [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
    [{"role": "assistant", "content": None, "tool_calls": [{"id": "a", "type": "function", "function": FUNCTION}]}],
    [{"role": "tool", "content": "3", "tool_call_id": "a"}],
    [{"type": "function", "function": FUNCTION}],
    {"type": "function", "function": {"name": "f"}},
    {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "integer"}}},
    {"type": "json_object"},
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
    st.sampled_from(_ALMOST_RIGHT)
    | _scalars
    | st.recursive(
        _scalars | st.sampled_from(_ALMOST_RIGHT),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(_INNER_NAMES) | st.text(max_size=5), inner, max_size=4)
        ),
        max_leaves=8,
    )
)
_names = st.sampled_from(_NAMES) | st.text(st.characters(), max_size=10)


@dataclass(frozen=True)
class Request:
    """What is sent."""

    method: str
    path: str
    content_type: str | None
    content: bytes

    def headers(self) -> dict[str, str]:
        """Those that are not the client's own matter."""
        return {} if self.content_type is None else {"content-type": self.content_type}


@st.composite
def _bodies(draw: st.DrawFn, path: str) -> bytes:
    """A right body after some changes, as JSON, or what is left of it."""
    body: Any = dict(RIGHT[path])
    for name in draw(st.lists(_names, max_size=4)):
        body[name] = draw(_values)
    for name in draw(st.lists(st.sampled_from(sorted(body)), max_size=1)):
        del body[name]
    body = draw(st.just(body) | st.just(body) | st.just(body) | _values)
    as_it_is = draw(st.booleans())
    content = json.dumps(body, ensure_ascii=as_it_is).encode("utf-8", "surrogatepass")
    return draw(st.just(content) | st.just(content) | st.just(content) | _damaged(content))


@st.composite
def _damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Cut off, with something else in the middle, nested, or twice."""
    at = draw(st.integers(0, len(content)))
    middle = draw(st.binary(max_size=4) | st.sampled_from([b"[" * 500, b'{"a":' * 500, b"1" * 5000, b"\xed\xa0\x80"]))
    return draw(
        st.sampled_from([content[:at], content[:at] + middle + content[at:], content + content, b"\xff\xfe" + content])
    )


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Mostly POST and JSON."""
    path = draw(st.sampled_from(sorted(RIGHT)))
    right_type = st.sampled_from(["application/json", "application/json; charset=utf-8", None])
    wrong_type = st.sampled_from(
        ["", "text/plain", "multipart/form-data", "application/x-www-form-urlencoded", "a/b/c", ";"]
    )
    return Request(
        method=draw(st.sampled_from(["POST"] * 12 + ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"])),
        path=path,
        content_type=draw(right_type | right_type | right_type | wrong_type),
        content=draw(_bodies(path)),
    )
