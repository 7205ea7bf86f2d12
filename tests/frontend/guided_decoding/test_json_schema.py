"""JSON Schemas as grammars: every answer is valid, or the schema is refused with the path of the reason."""

import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from frontend.errors import InvalidRequest
from frontend.guided_decoding import JsonObject, JsonSchema, to_ebnf_text
from frontend.guided_decoding.errors import InvalidConstraint
from tests.frontend.guided_decoding.random_model import answer, compiled, matches, matching
from tests.frontend.guided_decoding.schemas import json_schemas

FIELD = "response_format.json_schema.schema"


def grammar(schema: Any) -> str:
    return to_ebnf_text(JsonSchema(schema=schema, param=FIELD))


def accepted(schema: Any, *values: Any) -> list[Any]:
    """The values that the grammar accepts, in its one layout."""
    ebnf = grammar(schema)
    return [value for value in values if matches(ebnf, json.dumps(value, ensure_ascii=False))]


def refusal(schema: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        grammar(schema)
    assert caught.value.param == FIELD
    return caught.value.message.removeprefix(f"`{FIELD}` at ")


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(json_schemas())
def test_every_answer_of_a_random_model_is_valid_by_the_schema(schema: Any) -> None:
    try:
        compiled_grammar = compiled(grammar(schema))
    except (InvalidRequest, InvalidConstraint):
        return
    valid = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    for seed in range(3):
        text = answer(compiled_grammar, random.Random(seed))
        if text is not None:
            valid.validate(json.loads(text))


PERSON = {
    "type": "object",
    "title": "Person",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "role": {"enum": ["admin", "user"]},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
        "boss": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
    },
    "required": ["name", "age", "role", "tags", "boss"],
    "additionalProperties": False,
}


PEOPLE = st.fixed_dictionaries(
    {
        "name": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"), min_size=1),
        "age": st.integers(0, 150),
        "role": st.sampled_from(["admin", "user"]),
        "tags": st.lists(st.text("ab", max_size=3), max_size=3),
        "boss": st.none(),
    }
)


@settings(max_examples=50, deadline=None)
@given(PEOPLE)
def test_every_valid_value_of_a_common_schema_is_accepted(person: dict[str, Any]) -> None:
    in_order = {name: person[name] for name in PERSON["properties"]}  # type: ignore[attr-defined]
    assert accepted(PERSON, in_order) == [person]


def test_a_schema_may_refer_to_itself() -> None:
    person = {"name": "A", "age": 0, "role": "user", "tags": [], "boss": None}
    assert accepted(PERSON, {**person, "boss": {**person, "boss": person}}) != []


def test_only_one_layout_of_json_is_accepted() -> None:
    texts = ['{"a": [1, 2]}', '{"a":[1,2]}', '{ "a": [1, 2] }', '{"a": [1,  2]}', '{\n"a": [1, 2]}']
    assert matching(to_ebnf_text(JsonObject(param="response_format")), texts) == ['{"a": [1, 2]}']


def test_listed_properties_come_in_order_and_without_others() -> None:
    schema = {"properties": {"a": {}, "b": {}}, "required": ["b"]}
    values = [{"b": 1}, {"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1}, {"a": 1, "b": 2, "c": 3}, {}]
    assert accepted(schema, *values) == [{"b": 1}, {"a": 1, "b": 2}]


def test_additional_properties_have_other_names_than_the_listed_ones() -> None:
    schema = {"properties": {"ab": {"type": "null"}}, "additionalProperties": {"type": "integer"}}
    values = [{}, {"ab": None}, {"ab": None, "a": 1, "abc": 2, "": 3, "é": 4}, {"x": 1}, {"ab": 1}, {"x": None}]
    assert accepted(schema, *values) == values[:4]
    assert not matches(grammar(schema), '{"a\\u0062": 1}')


def test_a_required_property_need_not_be_listed() -> None:
    assert accepted({"type": "object", "required": ["x"]}, {"x": [1]}, {}) == [{"x": [1]}]


def test_at_least_one_of_several_optional_properties_can_be_required() -> None:
    schema = {"properties": {"a": {}, "b": {}}, "minProperties": 1}
    assert accepted(schema, {}, {"a": 1}, {"b": 1}) == [{"a": 1}, {"b": 1}]


def test_names_and_values_that_json_escapes_are_escaped() -> None:
    schema = {"properties": {'say "hi"\n': {"const": 'back\\slash "ü"'}}, "required": ['say "hi"\n']}
    assert accepted(schema, {'say "hi"\n': 'back\\slash "ü"'}) != []


def test_a_pattern_applies_to_the_text_not_to_its_json_escapes() -> None:
    schema = {"type": "string", "pattern": '^["\\\\\\n]{2}$'}
    assert accepted(schema, '""', "\\\n", '"', "\\\\\\") == ['""', "\\\n"]


def test_strings_are_counted_in_characters() -> None:
    schema = {"type": "string", "minLength": 2, "maxLength": 3}
    assert accepted(schema, "a", "é😀", "ab\n", "abcd") == ["é😀", "ab\n"]
    assert not matches(grammar(schema), '"\\ud83d\\ude00"')


@pytest.mark.parametrize(
    ("schema", "values"),
    [
        ({"prefixItems": [{"type": "null"}, {"type": "boolean"}]}, [[None, True]]),
        ({"prefixItems": [{"type": "null"}], "items": {"type": "integer"}, "maxItems": 2}, [[None], [None, 1]]),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3}, [[1, 2], [1, 2, 3]]),
        ({"type": "array", "items": False}, [[]]),
        ({"type": "array", "maxItems": 1, "uniqueItems": True}, [[], [1], [None], [[None]]]),
    ],
)
def test_arrays(schema: Any, values: list[Any]) -> None:
    others = [[], [1], [None], [1, 2], [1, 2, 3], [1, 2, 3, 4], [None, True], [None, 1], [None, 1, 2], [[None]], None]
    assert accepted(schema, *values) == values
    assert all(value in values for value in accepted(schema, *others))


def test_values_of_enum_are_filtered_by_the_keywords_beside_it() -> None:
    schema = {"enum": ["a", "abc", 3, None], "type": "string", "maxLength": 2, "not": {"const": "b"}}
    assert accepted(schema, "a", "abc", 3, None) == ["a"]


def test_all_of_ref_and_any_of_are_merged_with_the_keywords_beside_them() -> None:
    schema = {
        "$defs": {"named": {"properties": {"name": {"type": "string"}}, "required": ["name"]}},
        "allOf": [{"$ref": "#/$defs/named"}, {"properties": {"age": {"type": "integer", "minimum": 3}}}],
        "properties": {"age": {"maximum": 5}},
        "anyOf": [{"required": ["age"]}, {"properties": {"name": {"const": "x"}}}],
    }
    values = [{"age": 4, "name": "y"}, {"name": "x"}, {"age": 6, "name": "y"}, {"name": "y"}, {"age": 3}]
    assert accepted(schema, *values) == values[:2]


def test_alternatives_of_one_of_must_exclude_each_other() -> None:
    cat = {"properties": {"kind": {"const": "cat"}}, "required": ["kind"], "type": "object"}
    dog = {"properties": {"kind": {"const": "dog"}}, "required": ["kind"], "type": "object"}
    assert accepted({"oneOf": [cat, dog, {"type": "null"}]}, {"kind": "dog"}, None, {}) == [{"kind": "dog"}, None]
    assert "0 and 1 are not" in refusal({"oneOf": [{"type": "integer"}, {"type": "number"}]})
    assert "1 and 2 are not" in refusal({"oneOf": [cat, dog, dog]})


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "objec"}, "#/type: is not valid JSON Schema"),
        ({"properties": {"a": {"not": {"pattern": "b"}}}}, "#/properties/a: `not` is not supported here"),
        ({"type": "array", "uniqueItems": True}, "#: `uniqueItems` is supported for values that are listed"),
        ({"type": "array", "contains": {}}, "#: `contains` is not supported"),
        ({"properties": {"a": {"$id": "b", "$ref": "#"}}}, "`$id` 'b' below the root is not supported"),
        ({"$ref": "#/x", "x": {"items": [3]}}, "is not valid JSON Schema"),
        ({"dependencies": {"a": {}}, "dependentSchemas": None}, "is not valid JSON Schema"),
        ({"oneOf": [{"type": "string"}, {"pattern": "a"}]}, "0 and 1 are not. `anyOf` is supported"),
        ({"type": "number", "multipleOf": 0.01}, "#: `multipleOf` is supported for integers within limits"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "#: no integer is within the limits"),
        ({"type": "number", "exclusiveMinimum": 1, "maximum": 1}, "#: no number of six decimals is in this range"),
        ({"type": "integer", "minimum": 1e300}, "#: limits of numbers are supported up to 10^30"),
        ({"type": "string", "pattern": "a(?!b)"}, "#: `pattern` 'a(?!b)' uses look-ahead or look-behind"),
        ({"type": "string", "pattern": r"(a)\1"}, "uses a back-reference"),
        ({"type": "string", "pattern": "("}, "is not a regular expression: missing )"),
        ({"type": "string", "pattern": "a+", "maxLength": 3}, "`minLength` and `maxLength` beside a `pattern`"),
        ({"format": "date", "pattern": "^2"}, "#: `pattern` and `format` 'date' together are not supported"),
        ({"not": {"const": "a"}, "maxLength": 3}, "`not` with strings beside `pattern`, `format` or a length"),
        ({"$ref": "https://example.com/schema"}, "`$ref` 'https://example.com/schema' is not supported"),
        ({"properties": {"a": {"$ref": "#/$defs/b"}}}, "#/properties/a: `$ref` '#/$defs/b' points at nothing"),
        ({"allOf": [{"pattern": "a"}, {"pattern": "b"}]}, "#: `pattern` in two schemas that hold together"),
        ({"allOf": [{"type": "null"}, {"type": "string"}]}, "#: no type is left"),
        ({"type": "object", "minProperties": 2}, "#: `minProperties` is supported up to 1"),
        (False, "#: `false` accepts no value"),
        ([], "a JSON Schema is an object or a boolean"),
        ({"enum": ["\ud800"]}, "holds half of a surrogate pair"),
    ],
)
def test_an_unsupported_schema_is_refused_with_the_path(schema: Any, message: str) -> None:
    assert message in refusal(schema)


def test_no_schema_is_fetched_over_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("something was fetched"))
    assert "cannot be checked" in refusal({"enum": [{"a": 1}], "properties": {"a": {"$ref": "http://127.0.0.1:1/"}}})
    assert refusal({"$schema": "http://127.0.0.1:1/", "not": {}})


def test_a_schema_that_unfolds_into_too_many_is_refused() -> None:
    schema: Any = {"type": "string"}
    for _ in range(100):
        schema = {"type": "array", "items": schema}
    assert "nested too deeply" in refusal(schema)
    pairs = {"anyOf": [{"minimum": number} for number in range(30)]}
    assert "unfolds into too many" in refusal({"allOf": [pairs, pairs, pairs]})


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [{"type": "string"}, {"$ref": "#"}]},
        {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/b"}]}, "b": {"$ref": "#"}}},
        {
            "anyOf": [{"type": "object", "properties": {"p": {"$ref": "#/$defs/a"}}}, {"$ref": "#/$defs/a"}],
            "$defs": {"a": {"anyOf": [{"type": "string"}, {"$ref": "#"}]}},
        },
    ],
)
def test_a_schema_that_applies_itself_to_the_same_value_is_refused_as_validators_recurse_forever(schema: Any) -> None:
    with pytest.raises(RecursionError):
        Draft202012Validator(schema).is_valid(0)
    assert refusal(schema) == "#: `$ref` leads back to where it began, without a step into the value"


def test_a_schema_may_apply_itself_to_parts_of_the_value() -> None:
    tree = {"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#"}}]}
    assert accepted(tree, None, [], [[None], []], 1) == [None, [], [[None], []]]
