"""What is valid by `not` a schema, by `if`, `then` and `else`, and by dependencies, as alternatives without them.

Alternatives may leave out values, as the negation of most keywords is no keyword, and never let one in. What is left of
`not` in them is `{"not": {"enum": [...]}}` without numbers.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from .errors import InvalidConstraint
from .schema_dialects import rewrite_below
from .schema_keywords import TYPES
from .schema_merge import types_of

Plain = Callable[[Any], Any]
"""Resolves `$ref` and `allOf` of a subschema, and loosens it."""

CONDITIONAL = frozenset({"not", "if", "then", "else", "dependentRequired", "dependentSchemas"})
"""Keywords that `take_conditions` takes out of a schema."""
MAX_ALTERNATIVES = 64
"""Alternatives that one negation may become."""
_MAX_DEPTH = 6
"""Of properties within properties that a negation looks into."""


def take_conditions(schema: dict[str, Any], plain: Plain) -> list[Any]:
    """Takes CONDITIONAL keywords out of `schema`; returns the schemas that hold instead of them.

    Raises InvalidConstraint for a `not` none of whose keywords can be negated.
    """
    parts = []
    is_conditional = "if" in schema  # without it, `then` and `else` mean nothing
    condition, then, otherwise = (schema.pop(keyword, True) for keyword in ("if", "then", "else"))
    if is_conditional:
        met = {"allOf": [condition, then]}
        parts.append({"anyOf": [met, *({"allOf": [one, otherwise]} for one in negated(condition, plain))]})
    for name, required in schema.pop("dependentRequired", {}).items():
        parts.append({"anyOf": [_without(name), {"required": [name, *required]}]})
    for name, dependent in schema.pop("dependentSchemas", {}).items():
        parts.append({"anyOf": [_without(name), {"allOf": [{"required": [name]}, dependent]}]})
    if "not" in schema and not _is_listed(schema["not"]):
        parts.append({"anyOf": _expressible(schema.pop("not"), plain)})
    return parts


def _without(name: str) -> dict[str, Any]:
    return {"properties": {name: False}}


def _is_listed(schema: Any) -> bool:
    return isinstance(schema, dict) and schema.keys() == {"enum"} and not any(map(_is_number, schema["enum"]))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _expressible(schema: Any, plain: Plain) -> list[Any]:
    if alternatives := negated(schema, plain):
        return alternatives
    raise InvalidConstraint("`not` is not supported here: none of the keywords in it can be negated")


_HIDDEN_NOT = "$not"
"""Where `loosened` keeps what a `not` excludes."""
_STRICT = CONDITIONAL | {_HIDDEN_NOT, "oneOf", "maxContains", "unevaluatedItems", "unevaluatedProperties"}
"""Keywords that are left out, as fewer values would be valid by them where other schemas accept more."""


def loosened(schema: Any) -> Any:
    """The schema without conditions, and with `anyOf` in place of `oneOf`: more values are valid by it.

    What the grammar makes of them may leave out values. If that were negated, or taken for all that an alternative
    accepts, values would come in that the schema excludes.
    """
    if not isinstance(schema, dict):
        return schema
    rest = {key: value for key, value in schema.items() if key not in _STRICT}
    if "oneOf" in schema:
        rest.setdefault("anyOf", schema["oneOf"])
    loose = {key: rewrite_below(key, value, loosened) for key, value in rest.items()}
    return {**loose, _HIDDEN_NOT: schema["not"]} if "not" in schema else loose


def negated(schema: Any, plain: Plain, depth: int = 0) -> list[Any]:
    """Schemas by which only values are valid that are not valid by `schema`; none if there are none to be found."""
    schema = plain(schema)
    if isinstance(schema, bool) or depth > _MAX_DEPTH:
        return [] if schema is not False else [True]
    alternatives = []
    for keyword, value in schema.items():
        if keyword in _NEGATED:
            alternatives += _NEGATED[keyword](value)
        elif keyword == "properties":
            alternatives += _other_properties(value, plain, depth)
        elif keyword == "anyOf":
            alternatives += _none_of(value, plain, depth)
    return alternatives[:MAX_ALTERNATIVES]


def _other_properties(properties: Mapping[str, Any], plain: Plain, depth: int) -> list[Any]:
    """Objects that have one of the properties, with a value that is not valid by its schema."""
    return [
        {"type": "object", "properties": {name: other}, "required": [name]}
        for name, schema in properties.items()
        for other in negated(schema, plain, depth + 1)
    ]


def _none_of(branches: list[Any], plain: Plain, depth: int) -> list[Any]:
    """Each way to be valid by none of the branches."""
    ways: list[list[Any]] = [[]]
    for branch in branches:
        ways = [[*way, other] for way in ways for other in negated(branch, plain, depth + 1)][:MAX_ALTERNATIVES]
    return [{"allOf": way} for way in ways]


def _other_types(types: Any) -> list[Any]:
    excluded = set(types_of({"type": types}))
    excluded |= {"integer"} if "number" in excluded else {"number"} if "integer" in excluded else set()
    others = sorted(TYPES - excluded)
    return [{"type": others}] if others else []


def _other_values(values: list[Any]) -> list[Any]:
    """Values that are not listed: numbers by the gaps between those that are."""
    numbers = sorted(filter(_is_number, values))
    others = {"not": {"enum": [value for value in values if not _is_number(value)]}}
    if not numbers:
        return [others]
    below: list[Any] = [{"type": "number", "exclusiveMaximum": numbers[0]}]
    above = [{"type": "number", "exclusiveMinimum": numbers[-1]}]
    between = [{"type": "number", "exclusiveMinimum": low, "exclusiveMaximum": high} for low, high in pairwise(numbers)]
    return [{**others, "type": sorted(TYPES - {"number", "integer"})}, *below, *between, *above]


_NEGATED: dict[str, Callable[[Any], list[Any]]] = {
    "type": _other_types,
    "const": lambda value: _other_values([value]),
    "enum": _other_values,
    _HIDDEN_NOT: lambda schema: [schema],
    "required": lambda names: [{"type": "object", **_without(name)} for name in names],
    "minimum": lambda limit: [{"type": "number", "exclusiveMaximum": limit}],
    "maximum": lambda limit: [{"type": "number", "exclusiveMinimum": limit}],
    "exclusiveMinimum": lambda limit: [{"type": "number", "maximum": limit}],
    "exclusiveMaximum": lambda limit: [{"type": "number", "minimum": limit}],
    "minLength": lambda count: [{"type": "string", "maxLength": int(count) - 1}] if count > 0 else [],
    "maxLength": lambda count: [{"type": "string", "minLength": int(count) + 1}],
    "minItems": lambda count: [{"type": "array", "maxItems": int(count) - 1}] if count > 0 else [],
    "maxItems": lambda count: [{"type": "array", "minItems": int(count) + 1}],
}
