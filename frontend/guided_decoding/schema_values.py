"""The values that a schema lists, and the parts of a value that no keyword has evaluated."""

from collections.abc import Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator

from .schema_keywords import KNOWN, REFUSED, TYPES
from .schema_negation import CONDITIONAL


def excluded_values(kind: str, schema: Mapping[str, Any]) -> list[Any]:
    """The values of a type that `not` excludes."""
    return [value for value in schema.get("not", {}).get("enum", ()) if kind in _kinds(value)]


def _kinds(value: Any) -> set[str]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"integer", "number"}
    return {kind for kind in TYPES if Draft202012Validator.TYPE_CHECKER.is_type(value, kind)}


def listed_together(branches: Sequence[Any]) -> list[Any]:
    """The alternatives, with those that only list values merged into one, so that `factored` sees all values."""
    values: list[Any] = []
    others = []
    for branch in branches:
        rest = {key: branch[key] for key in branch if key in KNOWN} if isinstance(branch, dict) else {}
        if len(rest) == 1 and rest.keys() <= {"const", "enum"}:
            values += rest.get("enum", [rest.get("const")])
        else:
            others.append(branch)
    return [*others, {"enum": values}] if values else others


def evaluated(schema: dict[str, Any]) -> dict[str, Any]:
    """Writes `unevaluatedProperties` as `additionalProperties`, `unevaluatedItems` as `items`, where they are equal."""
    for unevaluated, plain in (("unevaluatedProperties", "additionalProperties"), ("unevaluatedItems", "items")):
        if unevaluated in schema and schema.keys().isdisjoint(_COMBINING | CONDITIONAL | REFUSED - {unevaluated}):
            schema.setdefault(plain, schema.pop(unevaluated))
    return schema


_COMBINING = frozenset({"$ref", "allOf", "anyOf", "oneOf"})
"""Keywords that apply other schemas to the same value, so that something else may be evaluated."""
