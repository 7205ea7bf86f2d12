"""Whether two JSON Schemas have no value in common. In doubt the answer is that they have one."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from .schema_merge import types_of

Plain = Callable[[Any], Any]
"""Resolves `$ref` and `allOf` of a subschema."""


def disjoint(one: Any, other: Any, plain: Plain) -> bool:
    """Whether types, listed values or a required property exclude a common value. Both are without `$ref`, `allOf`."""
    if one is False or other is False:
        return True
    ours, theirs = _types(one), _types(other)
    if "enum" in one and "enum" in other:
        return _texts(one).isdisjoint(_texts(other)) or ours.isdisjoint(theirs)
    common = ours & theirs
    return not common or (common == {"object"} and _members_differ(one, other, plain))


def _members_differ(one: Mapping[str, Any], other: Mapping[str, Any], plain: Plain) -> bool:
    """Whether a property that both require has disjoint schemas, or one requires a property that the other forbids."""
    if "enum" in one or "enum" in other:
        return False
    ours, theirs = set(one.get("required", ())), set(other.get("required", ()))
    return any(
        name in ours & theirs and disjoint(plain(_member(one, name)), plain(_member(other, name)), plain)
        for name in ours & theirs
    ) or any(_member(ruled, name) is False for required, ruled in ((ours, other), (theirs, one)) for name in required)


def _member(schema: Mapping[str, Any], name: str) -> Any:
    default = True if "patternProperties" in schema else schema.get("additionalProperties", True)
    return schema.get("properties", {}).get(name, default)


_ALL = frozenset({"object", "array", "string", "number", "boolean", "null"})


def _types(schema: Mapping[str, Any]) -> frozenset[str]:
    """The types that a value may have; integers are numbers."""
    types = (
        frozenset("number" if name == "integer" else name for name in types_of(schema)) if "type" in schema else _ALL
    )
    return types & {_type(value) for value in schema["enum"]} if "enum" in schema else types


def _texts(schema: Mapping[str, Any]) -> set[str]:
    # 1 and 1.0 are one value.
    return {json.dumps(float(value) if _type(value) == "number" else value, sort_keys=True) for value in schema["enum"]}


def _type(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case None:
            return "null"
    return "object"
