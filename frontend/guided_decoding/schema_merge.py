"""Merge two JSON Schemas into one that is valid where both are, keyword by keyword.

Not possible for keywords whose conjunction is not a single keyword, such as two patterns.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from .schema_keywords import KNOWN

Schema = Mapping[str, Any]


class NoConjunction(ValueError):
    """Two schemas cannot be merged; the message is the keyword that both have."""


def conjoin(first: Schema | bool, second: Schema | bool) -> Schema | bool:
    """The schema of what both accept. Raises NoConjunction."""
    if isinstance(first, bool):
        return second if first else False
    if isinstance(second, bool):
        return first if second else False
    if {"prefixItems", "items"} <= first.keys() | second.keys() and ("prefixItems" in first) != ("items" in first):
        raise NoConjunction("prefixItems")
    merged = {**second, **first}
    for keyword in first.keys() & second.keys() - {"properties", "additionalProperties"}:
        merged[keyword] = _both(keyword, first[keyword], second[keyword])
    return merged | _members(first, second)


def types_of(schema: Schema) -> list[str]:
    """`type` as a list."""
    types = schema["type"]
    return [types] if isinstance(types, str) else list(types)


def _both(keyword: str, one: Any, other: Any) -> Any:
    if keyword not in KNOWN or json.dumps(one) == json.dumps(other):
        return one
    if keyword not in _MEANING_OF_BOTH:
        raise NoConjunction(keyword)
    return _MEANING_OF_BOTH[keyword](one, other)


def _common_types(one: Any, other: Any) -> list[str]:
    ours, theirs = types_of({"type": one}), types_of({"type": other})
    common = [kind for kind in ours if kind in theirs]
    for one_side, other_side in ((ours, theirs), (theirs, ours)):
        if "integer" in one_side and "number" in other_side and not {"integer", "number"} & set(common):
            common.append("integer")
    return common


def common_values(one: list[Any], other: list[Any]) -> list[Any]:
    """The values of `one` that are in `other` too."""
    theirs = [json.dumps(value, sort_keys=True) for value in other]
    return [value for value in one if json.dumps(value, sort_keys=True) in theirs]


def _neither(one: Any, other: Any) -> dict[str, Any]:
    """What `not` excludes where it excludes both."""
    if all(isinstance(each, dict) and each.keys() == {"enum"} for each in (one, other)):
        return {"enum": [*one["enum"], *other["enum"]]}
    return {"anyOf": [one, other]}


_MEANING_OF_BOTH: dict[str, Callable[[Any, Any], Any]] = {
    "type": _common_types,
    "enum": common_values,
    "required": lambda one, other: list(dict.fromkeys([*one, *other])),
    **dict.fromkeys(("not", "$not"), _neither),
    "allOf": lambda one, other: [*one, *other],
    "items": lambda one, other: {"allOf": [one, other]},
    "propertyNames": lambda one, other: {"allOf": [one, other]},
    "uniqueItems": lambda one, other: one or other,
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
}


def _members(first: Schema, second: Schema) -> dict[str, Any]:
    """`properties` and `additionalProperties` of both; where one does not list a property, its latter applies."""
    both_have_members = not first.keys().isdisjoint(_MEMBERS) and not second.keys().isdisjoint(_MEMBERS)
    if both_have_members and "patternProperties" in first.keys() | second.keys():
        raise NoConjunction("patternProperties")
    members: dict[str, Any] = {}
    if "properties" in first or "properties" in second:
        ours, theirs = first.get("properties", {}), second.get("properties", {})
        members["properties"] = {
            name: _allowed(
                ours.get(name, first.get("additionalProperties", True)),
                theirs.get(name, second.get("additionalProperties", True)),
            )
            for name in dict.fromkeys([*ours, *theirs])
        }
    if "additionalProperties" in first or "additionalProperties" in second:
        members["additionalProperties"] = _allowed(
            first.get("additionalProperties", True), second.get("additionalProperties", True)
        )
    return members


_MEMBERS = {"properties", "additionalProperties", "patternProperties"}


def _allowed(one: Any, other: Any) -> Any:
    if isinstance(one, bool):
        return other if one else False
    if isinstance(other, bool):
        return one if other else False
    return {"allOf": [one, other]}
