"""What a body may hold: counted in its bytes, before anything is built of it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.errors import InvalidRequest
from frontend.openai.body_size import MAX_NAMES, MIN_VALUES, check_structure, default_max_body_bytes, max_values

CONTEXT = 4096


def check(body: Any) -> None:
    check_structure(json.dumps(body).encode(), max_values(CONTEXT))


def error_of(body: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as raised:
        check(body)
    return raised.value


@pytest.mark.parametrize(
    "value",
    [
        [1] * MIN_VALUES,
        [""] * MIN_VALUES,
        [[]] * (MAX_NAMES - 3),
        [{}] * (MAX_NAMES - 3),
        {str(n): 1 for n in range(9000)},
    ],
    ids=["numbers", "strings", "lists", "objects", "names"],
)
def test_body_within_the_limits_passes(value: Any) -> None:
    check({"value": value})


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ([1] * (MIN_VALUES + 2), "131072 values"),
        ([""] * (MIN_VALUES + 2), "131072 values"),
        ([[]] * MAX_NAMES, "32768 objects, lists and names of fields"),
        ([[1]] * MAX_NAMES, "32768 objects, lists and names of fields"),
        ([{}] * MAX_NAMES, "32768 objects, lists and names of fields"),
        ([{"role": "user", "content": "a"}] * 11_000, "32768 objects, lists and names of fields"),
        ({str(n): 1 for n in range(MAX_NAMES)}, "32768 objects, lists and names of fields"),
    ],
    ids=["numbers", "strings", "lists", "lists of one", "objects", "messages", "names"],
)
def test_body_over_a_limit_is_refused_by_the_name_of_its_field(value: Any, found: str) -> None:
    error = error_of({"model": "m", "before": {"inside": [1, 2]}, "field": value, "after": 1})
    assert error.message == f"`field` is too long: with it, the body has more than {found}, which is the limit."
    assert error.param == "field"


def test_many_unknown_fields_are_refused() -> None:
    assert error_of({f"unknown{n}": n for n in range(MAX_NAMES + 1)}).param == f"unknown{MAX_NAMES - 1}"


def test_body_that_is_no_object_is_refused_without_a_name() -> None:
    error = error_of([{}] * (MAX_NAMES + 1))
    assert error.param is None
    assert error.message.startswith("The body has more than 32768 objects")


@pytest.mark.parametrize("text", [",[{:", '"[{:,"', "\\\\[{:,", '\\"{', "\\\\\\", '\\\\"[:,'])
def test_punctuation_in_text_is_not_counted(text: str) -> None:
    check({"messages": [{"role": "user", "content": text * 50_000}], text: [text] * 1000})


def test_a_prompt_of_token_ids_may_fill_a_longer_context() -> None:
    check_structure(json.dumps({"prompt": [1] * 200_000}).encode(), max_values(200_000))


def test_thousand_messages_and_all_tools_pass() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    properties = {f"p{n}": {"type": "string", "description": "d"} for n in range(25)}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": properties}}}
    check({"messages": [{"role": "user", "content": parts}] * 1000, "tools": [tool] * 128, "prompt": ["a"] * 1024})


@given(
    st.recursive(
        st.text(alphabet='",:[]{}\\a') | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet='",:[]{}\\a'), inner),
    )
)
def test_count_is_that_of_the_parsed_body(value: Any) -> None:
    """A limit on values that is just enough passes, and one less does not. The padding makes it look closely."""
    raw = json.dumps({"padding": ",:[" * MAX_NAMES, "value": value}).encode()
    commas = _commas({"padding": "", "value": value})
    check_structure(raw, commas)
    with pytest.raises(InvalidRequest):
        check_structure(raw, commas - 1)


def _commas(value: Any) -> int:
    """The commas outside of strings."""
    if not isinstance(value, dict | list):
        return 0
    inner = list(value.values()) if isinstance(value, dict) else value
    return max(0, len(inner) - 1) + sum(map(_commas, inner))


def test_default_size_of_a_body_follows_from_the_context() -> None:
    assert default_max_body_bytes(32_768) == 1.5 * 2**20
