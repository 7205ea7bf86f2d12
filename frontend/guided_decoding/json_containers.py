"""Objects and arrays of a JSON Schema as grammar expressions, from the expressions of their members."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import json_text
from .ebnf import EMPTY, Rules, literal, one_of, optional, repeat, sequence
from .errors import InvalidConstraint, Unsatisfiable
from .matching_time import bounded_matching

Member = Callable[[Any, str], str]
"""From a subschema and its place in the parent (for messages) to its expression. Raises InvalidConstraint."""


def array_expression(schema: Mapping[str, Any], member: Member) -> str:
    """All of `prefixItems`, then `items`. With `prefixItems` and without `items`, there are no further items."""
    minimum, maximum = int(schema.get("minItems", 0)), schema.get("maxItems")
    maximum = None if maximum is None else int(maximum)
    first, maximum = _prefix(schema, member, maximum)
    rest = schema.get("items", "prefixItems" not in schema)
    try:
        item = member(rest, "items") if maximum is None or maximum > len(first) else None
    except Unsatisfiable:
        item = None
    if item is None:
        maximum = len(first)
    if maximum is not None and minimum > maximum:
        raise Unsatisfiable(f"`minItems` is {minimum}, and there can be no more than {maximum}")
    if schema.get("uniqueItems") and (maximum is None or maximum > 1):
        raise InvalidConstraint("`uniqueItems` is supported for values that are listed")
    if not first:
        return json_text.array_of('"["', item or EMPTY, '"]"', minimum, maximum)
    listed = f" {json_text.COMMA} ".join(first)
    more = repeat(f"{json_text.COMMA} {item}", max(minimum - len(first), 0), maximum and maximum - len(first))
    return sequence(['"["', listed, more, '"]"'])


def unique_array_expression(rules: Rules, schema: Mapping[str, Any], values: Sequence[Any]) -> str:
    """An array with `uniqueItems` of strings, booleans or null from a list: some of them, in the order of the list."""
    minimum, maximum = int(schema.get("minItems", 0)), schema.get("maxItems", len(values))
    if "prefixItems" in schema or minimum > 1 or maximum < len(values) or not all(map(_is_delimited, values)):
        raise InvalidConstraint(
            "`uniqueItems` is supported for listed strings, booleans and null, all of which may be in the array"
        )
    texts = dict.fromkeys(literal(json_text.dumps(value)) for value in values)
    items = [_Property(name="", text=text, required=False) for text in texts]
    return f'"[" {_members(rules, items, None, may_be_empty=minimum == 0)} "]"'


def _is_delimited(value: Any) -> bool:
    """Whether no text of another value begins with that of this one, as 10 does with 1."""
    return value is None or isinstance(value, bool | str)


def _prefix(schema: Mapping[str, Any], member: Member, maximum: int | None) -> tuple[list[str], int | None]:
    """The expressions of `prefixItems`, up to the first that no value is valid by; and the longest possible array."""
    first: list[str] = []
    for index, subschema in enumerate(schema.get("prefixItems", ())[:maximum]):
        try:
            first.append(member(subschema, f"prefixItems/{index}"))
        except Unsatisfiable:
            return first, index
    return first, maximum


@dataclass(frozen=True, slots=True, kw_only=True)
class _Property:
    name: str
    text: str
    required: bool


def object_expression(rules: Rules, schema: Mapping[str, Any], member: Member) -> str:
    """The listed properties in their order, then others if `additionalProperties` or `patternProperties` allow them.

    Without `additionalProperties`, a schema that names properties allows no others; one that names none allows any.
    """
    properties = _properties(schema, member)
    others = _others(rules, schema, [each.name for each in properties], member)
    required = sum(each.required for each in properties)
    minimum, maximum = int(schema.get("minProperties", 0)), schema.get("maxProperties")
    if maximum is not None and maximum < required:
        raise Unsatisfiable(f"`maxProperties` is {maximum}, and {required} are required")
    if minimum > max(1, required):
        # The grammar lets a name occur twice, and then it counts once.
        raise InvalidConstraint("`minProperties` is supported up to 1, or the number of required properties")
    if not properties:
        return _map(others, minimum, maximum)
    if maximum is not None and (others is not None or maximum < len(properties)):
        raise InvalidConstraint("`maxProperties` beside `properties` is supported if all of them fit")
    return f'"{{" {_members(rules, properties, others, may_be_empty=minimum == 0)} "}}"'


def _map(others: str | None, minimum: int, maximum: Any) -> str:
    if others is None:
        if minimum:
            raise Unsatisfiable("`minProperties` asks for properties, and none is allowed")
        return '"{}"'
    return json_text.array_of('"{"', others, '"}"', minimum, None if maximum is None else int(maximum))


def _properties(schema: Mapping[str, Any], member: Member) -> list[_Property]:
    """Those in `properties`, then those only in `required`; without optional ones that no value is valid by."""
    required = schema.get("required", ())
    listed = schema.get("properties", {})
    properties = []
    for name in dict.fromkeys([*listed, *required]):
        place = f"properties/{name}" if name in listed else "additionalProperties"
        subschema = listed.get(name, schema.get("additionalProperties", True))
        patterns = [also for pattern, also in schema.get("patternProperties", {}).items() if _found(pattern, name)]
        if patterns:
            subschema = {"allOf": [*([subschema] if name in listed else []), *patterns]}
        if "propertyNames" in schema:
            raise InvalidConstraint("`propertyNames` beside `properties` or `required` is not supported")
        try:
            text = f"{literal(json_text.dumps(name))} {json_text.COLON} {member(subschema, place)}"
            properties.append(_Property(name=name, text=text, required=name in required))
        except Unsatisfiable:
            if name in required:
                raise
    return properties


def _found(pattern: str, name: str) -> bool:
    try:
        with bounded_matching():
            return re.search(pattern, name) is not None
    except re.error as error:
        raise InvalidConstraint(f"`patternProperties` {pattern!r} is not a regular expression: {error}") from error


def _others(rules: Rules, schema: Mapping[str, Any], names: Sequence[str], member: Member) -> str | None:
    """The expression for a property whose name is not listed; None if there can be none."""
    patterns = schema.get("patternProperties", {})
    named = bool(names) or "properties" in schema
    try:
        if patterns:
            if named:
                return None
            if len(patterns) > 1 or "propertyNames" in schema:
                raise InvalidConstraint(
                    "more than one of `patternProperties`, or `propertyNames` beside them, is not supported"
                )
            [(pattern, subschema)] = patterns.items()
            key = member({"type": "string", "pattern": pattern}, "patternProperties")
            return rules.add("other", f"{key} {json_text.COLON} {member(subschema, 'patternProperties')}")
        value = member(schema.get("additionalProperties", not named), "additionalProperties")
        if "propertyNames" in schema:
            key = member({"allOf": [{"type": "string"}, schema["propertyNames"]]}, "propertyNames")
        else:
            key = f'"\\"" {json_text.other_than(frozenset(names))} "\\""' if names else json_text.string(rules)
        return rules.add("other", f"{key} {json_text.COLON} {value}")
    except Unsatisfiable:
        return None


def _members(rules: Rules, properties: Sequence[_Property], others: str | None, *, may_be_empty: bool) -> str:
    """Required and optional properties in their order, with commas between those that occur."""
    comma = json_text.COMMA
    tails = [repeat(f"{comma} {others}", 0, None) if others else EMPTY]
    for each in reversed(properties[1:]):
        one = f"{comma} {each.text}"
        tails.append(rules.add("members", sequence([one if each.required else optional(one), tails[-1]])))
    tails.reverse()
    firsts = []
    for each, tail in zip(properties, tails, strict=True):
        firsts.append(sequence([each.text, tail]))
        if each.required:
            return one_of(firsts)
    if others:
        firsts.append(sequence([others, tails[-1]]))
    return optional(one_of(firsts)) if may_be_empty else one_of(firsts)
