"""Forms of schemas: older drafts, identifiers, formats, conditions, exclusive alternatives."""

import ipaddress
import json
import random
import re
import uuid
from base64 import b64decode, urlsafe_b64decode
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from jsonschema import Draft4Validator, Draft7Validator, Draft202012Validator

from frontend.errors import InvalidRequest
from frontend.guided_decoding.json_formats import FORMATS
from tests.frontend.guided_decoding.random_model import answer, compiled
from tests.frontend.guided_decoding.test_json_schema import accepted, grammar, refusal


def answers(schema: Any, count: int = 30) -> list[Any]:
    """What a random model answers."""
    guide = compiled(grammar(schema))
    texts = [answer(guide, random.Random(seed)) for seed in range(count)]
    return [json.loads(text) for text in texts if text is not None]


OLDER: dict[str, tuple[Any, Any, list[Any], list[Any]]] = {
    "draft 4's exclusive limits": (
        Draft4Validator,
        {"type": "integer", "minimum": 1, "exclusiveMinimum": True, "maximum": 3, "exclusiveMaximum": False},
        [2, 3],
        [1, 4],
    ),
    "a list in items": (
        Draft7Validator,
        {"type": "array", "items": [{"type": "null"}], "additionalItems": {"type": "integer"}, "maxItems": 3},
        [[None], [None, 1], [None, 1, 2]],
        [[1], [None, None], [None, 1, 2, 3]],
    ),
    "additionalItems beside one schema in items": (
        Draft7Validator,
        {"type": "array", "items": {"type": "null"}, "additionalItems": False},
        [[], [None, None]],
        [[1]],
    ),
    "dependencies": (
        Draft7Validator,
        {
            "type": "object",
            "properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}},
            "dependencies": {"a": ["b"], "b": {"required": ["c"]}},
        },
        [{}, {"b": None, "c": None}, {"a": None, "b": None, "c": None}, {"c": None}],
        [{"a": None}, {"b": None}, {"a": None, "b": None}],
    ),
    "id and references to it": (
        Draft4Validator,
        {
            "id": "http://example.com/root.json#",
            "type": "array",
            "items": {"$ref": "http://example.com/root.json#/definitions/item"},
            "definitions": {"item": {"type": "object", "properties": {"id": {"type": "null"}}, "required": ["id"]}},
        },
        [[], [{"id": None}]],
        [[{}]],
    ),
    "anchors": (
        Draft202012Validator,
        {
            "$id": "https://a/b",
            "$defs": {"x/y": {"$anchor": "x", "const": 1}},
            "items": {"$ref": "#x"},
            "type": "array",
        },
        [[], [1]],
        [[2]],
    ),
    "an anchor of draft 7": (
        Draft7Validator,
        {"definitions": {"x": {"$id": "#x", "const": 1}}, "items": {"$ref": "#x"}, "type": "array"},
        [[], [1]],
        [[2]],
    ),
    "an address below the root": (
        Draft202012Validator,
        {"properties": {"a": {"$id": "https://a/b", "type": "null"}}, "required": ["a"]},
        [{"a": None}],
        [{"a": 1}],
    ),
}


@pytest.mark.parametrize("form", OLDER)
def test_older_drafts_and_identifiers_mean_what_they_meant(form: str) -> None:
    validator, schema, valid, invalid = OLDER[form]
    assert accepted(schema, *valid, *invalid) == valid
    assert all(validator(schema).is_valid(value) for value in [*valid, *answers(schema)])
    assert not any(validator(schema).is_valid(value) for value in invalid)


def test_keywords_are_only_rewritten_where_they_are_keywords() -> None:
    schema = {"properties": {"id": {"const": {"items": [1], "id": "x"}}, "$id": {"type": "null"}}, "required": ["id"]}
    assert accepted(schema, {"id": {"items": [1], "id": "x"}}, {"id": {"prefixItems": [1]}}) == [
        {"id": {"items": [1], "id": "x"}}
    ]


CONDITIONS: dict[str, tuple[Any, list[Any], list[Any]]] = {
    "if a tag, then a property, else another": (
        {
            "type": "object",
            "properties": {"kind": {"enum": ["a", "b"]}, "x": {"type": "null"}, "y": {"type": "null"}},
            "required": ["kind"],
            "if": {"properties": {"kind": {"const": "a"}}},
            "then": {"required": ["x"]},
            "else": {"required": ["y"]},
        },
        [{"kind": "a", "x": None}, {"kind": "b", "y": None}],
        [{"kind": "a"}, {"kind": "b", "x": None}],
    ),
    "only else": ({"type": ["integer", "null"], "if": {"type": "null"}, "else": {"minimum": 3}}, [None, 3], [2]),
    "then without if": ({"type": "null", "then": {"type": "string"}}, [None], ["a"]),
    "not a type": ({"not": {"type": ["null", "object"]}}, [1, 1.5, "a", [], True], [None, {}]),
    "not an integer": ({"not": {"type": "integer"}, "type": ["number", "null"]}, [None], [1]),
    "not a text": ({"type": "string", "not": {"enum": ["a", "ab"]}}, ["", "b", "abc"], ["a", "ab"]),
    "not an empty text": ({"type": "string", "not": {"const": ""}}, ["a"], [""]),
    "not a number": ({"type": "integer", "not": {"enum": [3, 5]}}, [2, 4, 6], [3, 5]),
    "not a boolean": ({"type": "boolean", "not": {"const": True}}, [False], [True]),
    "neither of two": (
        {"type": "string", "allOf": [{"not": {"const": "a"}}, {"not": {"const": "b"}}]},
        ["c"],
        ["a", "b"],
    ),
    "none of some": ({"not": {"anyOf": [{"type": "string"}, {"type": "object"}]}}, [None, 1], ["a", {}]),
    "not both properties": (
        {
            "properties": {"a": {"type": "null"}, "b": {"type": "null"}},
            "type": "object",
            "not": {"required": ["a", "b"]},
        },
        [{}, {"a": None}, {"b": None}],
        [{"a": None, "b": None}],
    ),
    "not in a range": ({"type": "integer", "not": {"minimum": 2, "maximum": 4}}, [1, 5], [2, 3, 4]),
    "not that long": ({"type": "string", "not": {"minLength": 3}}, ["", "ab"], ["abc"]),
    "not not": ({"not": {"not": {"type": "null"}}}, [None], [1]),
    "dependentRequired": (
        {
            "type": "object",
            "properties": {"a": {"type": "null"}, "b": {"type": "null"}},
            "dependentRequired": {"a": ["b"]},
        },
        [{}, {"b": None}, {"a": None, "b": None}],
        [{"a": None}],
    ),
}


@pytest.mark.parametrize("form", CONDITIONS)
def test_conditions(form: str) -> None:
    schema, valid, invalid = CONDITIONS[form]
    assert accepted(schema, *valid, *invalid) == valid
    assert all(Draft202012Validator(schema).is_valid(value) for value in [*valid, *answers(schema)])
    assert not any(Draft202012Validator(schema).is_valid(value) for value in invalid)


@pytest.mark.parametrize(
    "schema",
    [
        {"not": {"not": {"type": "string", "pattern": "^a+$"}}},
        {"type": ["string", "null"], "not": {"if": {"pattern": "^a"}, "then": {"type": "null"}}},
        {"oneOf": [{"type": "null"}, {"if": {"type": "string", "pattern": "^a"}, "else": {"type": "boolean"}}]},
        {"oneOf": [{"enum": ["a", "b"]}, {"type": "string", "not": {"pattern": "^b"}}]},
        {"not": {"oneOf": [{"type": "string"}, {"not": {"pattern": "^b"}}]}, "type": "string"},
        {"oneOf": [{"enum": ["a", "b"]}, {"type": "string", "oneOf": [{"const": "b"}, {"not": {"minLength": 9}}]}]},
        {"not": {"dependentRequired": {"a": ["b"]}, "type": "object"}},
    ],
)
def test_what_may_leave_out_values_is_never_negated(schema: Any) -> None:
    try:
        given = answers(schema)
    except InvalidRequest:
        return
    assert all(Draft202012Validator(schema).is_valid(value) for value in given)


def _tagged(tag: str, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"kind": {"const": tag, "default": tag}, **more}}


EXCLUSIVE: dict[str, tuple[Any, list[Any], list[Any]]] = {
    "a tag that has a default": (
        {"oneOf": [_tagged("a"), _tagged("b", x={"type": "null"})], "discriminator": {"propertyName": "kind"}},
        [{"kind": "a"}, {"kind": "b"}, {"kind": "b", "x": None}],
        [{}],
    ),
    "one property or the other": (
        {
            "type": "object",
            "properties": {"a": {"type": "null"}, "b": {"type": "null"}},
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
        },
        [{"a": None}, {"b": None}],
        [{}, {"a": None, "b": None}],
    ),
    "listed values and a pattern": (
        {"oneOf": [{"enum": ["file", "none"]}, {"type": "string", "pattern": "^[0-9]+$"}]},
        ["file", "12"],
        ["other"],
    ),
    "ranges": ({"oneOf": [{"type": "integer", "maximum": 2}, {"type": "integer", "exclusiveMinimum": 2}]}, [2, 3], []),
    "lengths": (
        {"oneOf": [{"type": "string", "maxLength": 1}, {"type": "string", "minLength": 3}]},
        ["a", "abc"],
        ["ab"],
    ),
}


@pytest.mark.parametrize("form", EXCLUSIVE)
def test_exclusive_alternatives(form: str) -> None:
    schema, valid, invalid = EXCLUSIVE[form]
    assert accepted(schema, *valid, *invalid) == valid
    assert all(Draft202012Validator(schema).is_valid(value) for value in [*valid, *answers(schema)])


def test_an_alternative_without_a_type_takes_every_other_value() -> None:
    schema = {"oneOf": [{"type": "string"}, {"required": ["a"], "properties": {"a": {"type": "null"}}}]}
    assert "0 and 1 are not" in refusal(schema)


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        ({"items": {"enum": ["a", "ab", None]}}, [[], ["a"], ["ab", None], ["a", "ab", None]], [["a", "a"], ["b"]]),
        ({"items": {"$ref": "#/$defs/x"}, "minItems": 1, "$defs": {"x": {"const": "a"}}}, [["a"]], [[], ["a", "a"]]),
        ({"items": {"type": "boolean"}}, [[], [False], [False, True]], [[True, True]]),
    ],
)
def test_unique_items_that_are_listed(schema: Any, valid: list[Any], invalid: list[Any]) -> None:
    schema = {"type": "array", "uniqueItems": True, **schema}
    assert accepted(schema, *valid, *invalid) == valid
    assert all(Draft202012Validator(schema).is_valid(value) for value in answers(schema))


@pytest.mark.parametrize("schema", [{"items": {"enum": [1, 10]}}, {"items": {"enum": ["a", "b"]}, "minItems": 2}])
def test_unique_items_that_cannot_be_told_apart_are_refused(schema: Any) -> None:
    assert "`uniqueItems` is supported for" in refusal({"type": "array", "uniqueItems": True, **schema})


LARGE = [2**53 - 1, 2**53, 2**53 + 2, 10**18, 2**63 - 1024, 2**63, 2**64 - 2048, 2**64, -(2**63), -(2**63) - 2048]


@pytest.mark.parametrize("kind", ["integer", "number"])
@pytest.mark.parametrize("limits", [(-(2**63), 2**63 - 1), (0, 2**64 - 1), (2**53 + 1, 1e19), (None, -(2**53) - 1)])
@pytest.mark.parametrize("names", [("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum")])
def test_large_limits_hold_for_parsers_that_read_doubles_too(kind: str, limits: Any, names: Any) -> None:
    schema = {"type": kind, **{name: limit for name, limit in zip(names, limits, strict=True) if limit is not None}}
    judge = Draft202012Validator(schema)
    found = [*accepted(schema, *LARGE), *(value for value in answers(schema) if isinstance(value, int))]
    assert all(judge.is_valid(value) and judge.is_valid(int(float(value))) for value in found)
    inside = [value for value in LARGE if judge.is_valid(value)]
    assert [value for value in inside if value not in found] == []


def test_keywords_that_no_draft_has_do_not_conflict() -> None:
    schema = {"$ref": "#/$defs/a", "markdownDescription": "b", "$defs": {"a": {"const": 1, "markdownDescription": "c"}}}
    assert accepted(schema, 1, 2) == [1]


def test_types_of_both_are_common_ones() -> None:
    assert accepted({"type": ["integer", "number", "object"], "allOf": [{"type": "object"}]}, {}, 3) == [{}]


JUDGES: dict[str, Callable[[str], Any]] = {
    "ipvanyaddress": ipaddress.ip_address,
    "ipv4network": ipaddress.IPv4Network,
    "ipv6network": ipaddress.IPv6Network,
    "ipvanynetwork": ipaddress.ip_network,
    "ipv4interface": ipaddress.IPv4Interface,
    "ipv6interface": ipaddress.IPv6Interface,
    "ipvanyinterface": ipaddress.ip_interface,
    "byte": lambda text: b64decode(text, validate=True),
    "base64": lambda text: b64decode(text, validate=True),
    "base64url": urlsafe_b64decode,
    "regex": re.compile,
    **dict.fromkeys(("uri", "url", "iri", "uri-reference", "iri-reference", "uri-template"), urlsplit),
}


@pytest.mark.parametrize("format_", JUDGES)
def test_formats_that_jsonschema_does_not_check(format_: str) -> None:
    for text in answers({"type": "string", "format": format_}):
        JUDGES[format_](text)


@pytest.mark.parametrize("version", range(1, 9))
def test_a_uuid_has_its_version(version: int) -> None:
    assert {uuid.UUID(text).version for text in answers({"format": f"uuid{version}", "type": "string"})} == {version}


def test_other_formats_are_annotations() -> None:
    assert "password" not in FORMATS
    assert accepted({"type": "string", "format": "password", "pattern": "^a+$"}, "aa", "b") == ["aa"]
    assert accepted({"type": "string", "format": "password", "maxLength": 2}, "aa", "abc") == ["aa"]
