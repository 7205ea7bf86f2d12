"""JSON Schemas of older drafts (4 to 2019-09) and with identifiers, rewritten as draft 2020-12 without identifiers.

Only what 2020-12 does not know or refuses is rewritten, so a schema of that draft stays as it is.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .errors import InvalidConstraint

Schema = dict[str, Any]

_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_SINGLE = frozenset(
    {"items", "additionalProperties", "propertyNames", "contains", "not", "if", "then", "else", "additionalItems"}
    | {"unevaluatedItems", "unevaluatedProperties"}
)
"""Keywords whose values are schemas: by name, in a list, or one."""


def modern(schema: Any) -> Any:
    """`schema` as draft 2020-12, with every `$ref` a JSON pointer where it points into the schema.

    Raises InvalidConstraint for an identifier below the root that changes what a `$ref` means.
    """
    if not isinstance(schema, dict):
        return schema
    own_id = schema.get("$id", schema.get("id"))
    anchors = dict(_anchors(schema, "#"))
    return _modern(schema, _Refs(own_id.rstrip("#") if isinstance(own_id, str) else "", anchors), is_root=True)


class _Refs:
    """Rewrites references: those to the schema's own address, and those by anchor."""

    def __init__(self, own_id: str, anchors: Mapping[str, str]) -> None:
        self._own_id, self._anchors = own_id, anchors

    def pointer(self, ref: str) -> str:
        """`ref` as a JSON pointer; unchanged if it points elsewhere."""
        if self._own_id and (ref == self._own_id or ref.startswith(self._own_id + "#")):
            ref = ref.removeprefix(self._own_id) or "#"
        return self._anchors.get(ref, ref)


def _modern(schema: Any, refs: _Refs, *, is_root: bool = False) -> Any:
    if not isinstance(schema, dict):
        return schema
    if not is_root and (identifier := _base(schema)) and _has_ref(schema):
        raise InvalidConstraint(f"`$id` {identifier!r} below the root is not supported where a `$ref` is in it")
    rewritten = _without_identifiers(_tuples(_limits(schema)))
    if isinstance(rewritten.get("$ref"), str):
        rewritten["$ref"] = refs.pointer(rewritten["$ref"])
    if isinstance(rewritten.get("dependencies"), dict):
        _split_dependencies(rewritten)
    return {key: rewrite_below(key, value, lambda part: _modern(part, refs)) for key, value in rewritten.items()}


def rewrite_below(keyword: str, value: Any, rewrite: Callable[[Any], Any]) -> Any:
    """The value of a keyword, with `rewrite` applied to the schemas in it."""
    if keyword in _MAPS and isinstance(value, dict):
        return {name: rewrite(part) for name, part in value.items()}
    if keyword in _LISTS and isinstance(value, list):
        return [rewrite(part) for part in value]
    if keyword in _SINGLE or (keyword not in _PLAIN and isinstance(value, dict)):
        return rewrite(value)  # an unknown keyword may hold schemas that a `$ref` points to
    return value


_PLAIN = frozenset({"const", "enum", "default", "examples", "required", "dependentRequired", "dependencies"})
"""Keywords whose values are no schemas. `dependencies` is rewritten before."""


def is_schema_at(pointer: Sequence[str]) -> bool:
    """Whether the parts of a JSON pointer lead, from a schema, to the value of keywords that hold schemas."""
    parts = iter(pointer)
    for keyword in parts:
        if keyword in _MAPS | _LISTS:
            if next(parts, None) is None:
                return False
        elif keyword not in _SINGLE:
            return False
    return True


def _without_identifiers(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key not in _IDENTIFIERS or not isinstance(value, str)}


_IDENTIFIERS = frozenset({"$id", "id", "$anchor"})


def _base(schema: Schema) -> str | None:
    """The address that a schema gives itself; None if it has none, or only an anchor."""
    names = [schema.get("$id"), schema.get("id")]
    return next((name for name in names if isinstance(name, str) and not name.startswith("#")), None)


def _has_ref(schema: Any) -> bool:
    if isinstance(schema, dict):
        return isinstance(schema.get("$ref"), str) or any(map(_has_ref, schema.values()))
    return isinstance(schema, list) and any(map(_has_ref, schema))


def _anchors(schema: Any, pointer: str) -> list[tuple[str, str]]:
    """The anchors in a schema, each as `#name` and the JSON pointer of its schema."""
    if not isinstance(schema, dict):
        return []
    names = [f"#{schema['$anchor']}"] if isinstance(schema.get("$anchor"), str) else []
    names += [schema[key] for key in ("$id", "id") if str(schema.get(key, "")).startswith("#")]
    found = [(name, pointer) for name in names if name != "#"]
    for keyword, value in schema.items():
        if keyword in _SINGLE:
            found += _anchors(value, f"{pointer}/{keyword}")
        elif keyword in _MAPS and isinstance(value, dict):
            for name, part in value.items():
                found += _anchors(part, f"{pointer}/{keyword}/{name.replace('~', '~0').replace('/', '~1')}")
        elif keyword in _LISTS and isinstance(value, list):
            for index, part in enumerate(value):
                found += _anchors(part, f"{pointer}/{keyword}/{index}")
    return found


def _limits(schema: Schema) -> Schema:
    """Draft 4's `exclusiveMinimum: true`, which says that `minimum` itself is excluded, as a limit of its own."""
    changed = dict(schema)
    for exclusive, inclusive in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(changed.get(exclusive), bool):
            is_exclusive = changed.pop(exclusive)
            if is_exclusive and inclusive in changed:
                changed[exclusive] = changed.pop(inclusive)
    return changed


def _tuples(schema: Schema) -> Schema:
    """`items` as a list is what `prefixItems` is now, and `additionalItems` beside it is `items`."""
    changed = {key: value for key, value in schema.items() if key != "additionalItems"}
    if isinstance(schema.get("items"), list) and "prefixItems" not in schema:
        changed["prefixItems"] = changed.pop("items")
        if not changed["prefixItems"]:
            del changed["prefixItems"]
        if "additionalItems" in schema:
            changed["items"] = schema["additionalItems"]
    return changed


def _split_dependencies(schema: Schema) -> None:
    """`dependencies`, as the keyword that each of them is now."""
    for name, value in schema.pop("dependencies").items():
        if isinstance(value, str):
            value = [value]  # draft 3
        keyword = "dependentRequired" if isinstance(value, list) else "dependentSchemas"
        newer = schema.setdefault(keyword, {})
        if isinstance(newer, dict):  # else the schema is refused for it
            schema[keyword] = {**newer, name: value}
