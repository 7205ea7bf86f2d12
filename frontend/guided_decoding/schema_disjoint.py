"""Whether two JSON Schemas have no value in common, and how the alternatives of `oneOf` come to have none."""

import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from itertools import product
from typing import Any

from .errors import InvalidConstraint
from .schema_merge import types_of

Plain = Callable[[Any], Any]
"""Resolves `$ref` and `allOf` of a subschema, and loosens it (schema_negation.py)."""
Valid = Callable[[Sequence[Any], Any], list[Any]]
"""Those of some values that are valid by a subschema."""


def told_apart(branches: Sequence[Any], plain: Plain, valid: Valid) -> list[Any]:
    """The alternatives of a `oneOf`, so that no value is valid by two of them.

    Where they are not so by themselves, a property that tells them apart is required of each; or each may not have what
    another requires. Raises InvalidConstraint.
    """
    plains = [plain(branch) for branch in branches]
    common = _overlap(plains, plains, plain, valid)
    if common is None:
        return list(branches)
    for more in (*_with_tag(plains), _without_others(plains)):
        narrowed = [plain({"allOf": list(pair)}) for pair in zip(plains, more, strict=True)]
        if _overlap(narrowed, plains, plain, valid) is None:
            return [{"allOf": list(pair)} for pair in zip(branches, more, strict=True)]
    first, second = common
    raise InvalidConstraint(
        f"`oneOf` is supported for alternatives told apart by type, values, limits or properties; "
        f"{first} and {second} are not. `anyOf` is supported"
    )


def _overlap(narrowed: Sequence[Any], branches: Sequence[Any], plain: Plain, valid: Valid) -> tuple[int, int] | None:
    """The first alternative, narrowed, and the other one that may have a value of it; None if there are none."""
    for (first, one), (second, other) in product(enumerate(narrowed), enumerate(branches)):
        if first != second and not disjoint(one, other, plain, valid):
            return first, second
    return None


def _with_tag(branches: Sequence[Any]) -> list[list[Any]]:
    """For each property that all alternatives list, what requires it: its `default` may have made it optional."""
    listed = [branch.get("properties", {}) if isinstance(branch, dict) else {} for branch in branches]
    tags = [name for name in listed[0] if all(name in properties for properties in listed)]
    return [[{"type": "object", "required": [tag]}] * len(branches) for tag in tags]


def _without_others(branches: Sequence[Any]) -> list[Any]:
    """For each alternative, what forbids a property that another one requires and it does not."""
    required = [branch.get("required", []) if isinstance(branch, dict) else [] for branch in branches]
    return [
        {"type": "object", "properties": _forbidden(own, [other for other in required if other is not own])}
        if own or (isinstance(branch, dict) and _types(branch) == {"object"})
        else {}
        for branch, own in zip(branches, required, strict=True)
    ]


def _forbidden(own: Sequence[str], others: Sequence[Sequence[str]]) -> dict[str, Any]:
    foreign = [[name for name in other if name not in own] for other in others]
    return {names[0]: False for names in foreign if names}


def disjoint(one: Any, other: Any, plain: Plain, valid: Valid) -> bool:
    """Whether types, values, limits or a property exclude a common value. In doubt they do not.

    Both are without `$ref` and `allOf`.
    """
    if one is False or other is False:
        return True
    ours, theirs = _types(one), _types(other)
    if "enum" in one and "enum" in other:
        return _texts(one).isdisjoint(_texts(other)) or ours.isdisjoint(theirs)
    for listing, ruled in ((one, other), (other, one)):
        if "enum" in listing:
            return not valid(listing["enum"], ruled)
    common = ours & theirs
    if len(common) != 1:
        return not common
    [kind] = common
    if kind in _LIMITS and _limits_differ(one, other, *_LIMITS[kind]):
        return True
    return kind == "object" and _members_differ(one, other, plain, valid)


_LIMITS = {
    "object": ("minProperties", "maxProperties"),
    "array": ("minItems", "maxItems"),
    "string": ("minLength", "maxLength"),
    "number": ("minimum", "maximum"),
}
"""The limits of values of a type."""


def _limits_differ(one: Mapping[str, Any], other: Mapping[str, Any], low: str, high: str) -> bool:
    """Whether the least of one is above the most of the other."""
    return _above(one, other, low, high) or _above(other, one, low, high)


def _above(one: Mapping[str, Any], other: Mapping[str, Any], low: str, high: str) -> bool:
    return any(
        least > most or (least == most and (excluded or also_excluded))
        for least, excluded in _limits_of(one, low)
        for most, also_excluded in _limits_of(other, high)
    )


_EXCLUSIVE = {"minimum": "exclusiveMinimum", "maximum": "exclusiveMaximum"}


def _limits_of(schema: Mapping[str, Any], keyword: str) -> list[tuple[Decimal, bool]]:
    """The limits in a schema, and whether they are excluded themselves."""
    exclusive = _EXCLUSIVE.get(keyword, "")
    found = [(Decimal(str(schema[keyword])), False)] if keyword in schema else []
    return [*found, (Decimal(str(schema[exclusive])), True)] if exclusive in schema else found


def _members_differ(one: Mapping[str, Any], other: Mapping[str, Any], plain: Plain, valid: Valid) -> bool:
    """Whether a property that one of them requires has disjoint schemas, or is forbidden by the other."""
    return any(
        disjoint(plain(_member(one, name)), plain(_member(other, name)), plain, valid)
        for name in dict.fromkeys([*one.get("required", ()), *other.get("required", ())])
    )


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
