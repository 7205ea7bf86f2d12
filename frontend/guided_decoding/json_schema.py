"""JSON Schema (draft 2020-12, and older ones as schema_dialects.py reads them) as a grammar of answers valid by it.

Every keyword is translated, ignored as an annotation, or refused with its path. The grammar may allow less than the
schema and never allows more: objects have their properties in the schema's order and no others (unless
`additionalProperties` says so), patterns match the complete string, and each `format` that is known is enforced.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from graphlib import CycleError, TopologicalSorter
from typing import Any
from urllib.parse import unquote

from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.exceptions import Unresolvable

from . import json_text
from .ebnf import Rules, elements, factored, one_of
from .errors import InvalidConstraint, Unsatisfiable
from .json_containers import Member, array_expression, object_expression, unique_array_expression
from .json_scalars import integer_expression, number_expression, string_expression
from .matching_time import bounded_matching
from .schema_check import check_schema
from .schema_dialects import is_schema_at, modern
from .schema_disjoint import told_apart
from .schema_keywords import FAMILIES, KNOWN, REFUSED, TYPES
from .schema_merge import NoConjunction, common_values, conjoin, types_of
from .schema_negation import loosened, take_conditions
from .schema_values import evaluated, excluded_values, listed_together

Schema = Mapping[str, Any]

MAX_DEPTH = 64
"""Nesting of schemas, references included."""
MAX_SCHEMAS = 5000
"""Subschemas that one schema may unfold into."""


def json_schema(rules: Rules, schema: Any) -> str:
    """An expression for the JSON values that are valid by `schema`; the rules that it uses are added to `rules`.

    Raises InvalidConstraint, with the path in the schema as a JSON pointer.
    """
    root = modern(schema)
    check_schema(root)
    translator = _Translator(rules, root)
    name = translator.expression(root, "#", 0)
    translator.check_progress()
    return name


class _Translator:
    """Translates one schema to rules. Equal subschemas share a rule, which also ends recursion."""

    def __init__(self, rules: Rules, root: Any) -> None:
        self._rules = rules
        self._root = root
        self._names: dict[str, str] = {}
        self._unfolded = 0
        self._loose: _Translator | None = None
        self._checked = set[str]()
        """References to places where no keyword says that there is a schema."""
        self._rule: str | None = None
        """The rule being written, whose subschemas apply to the same value; None within a property or an array item."""
        self._same_value: dict[str, set[str]] = {}
        """For each rule the rules that it refers to for the same value, without a step into an object or array."""

    def expression(self, schema: Any, path: str, depth: int) -> str:
        """The name of the rule for `schema`."""
        if schema is True:
            return json_text.value(self._rules)
        key = json.dumps(schema)
        if key in self._names:
            return self._refer_to(self._names[key])
        self._unfolded += 1
        if depth > MAX_DEPTH or self._unfolded > MAX_SCHEMAS:
            raise _at(path, InvalidConstraint("the schema is nested too deeply, or unfolds into too many"))
        mark, known = self._rules.mark(), dict(self._names)
        name = self._names[key] = self._rules.allocate(path.rpartition("/")[2].replace("#", "answer"))
        outer, self._rule = self._rule, name
        try:
            self._rules.define(name, self._body(schema, path, depth))
        except InvalidConstraint as error:
            self._rules.forget_since(mark)
            self._names = known
            self._same_value.pop(name, None)
            raise _at(path, error) from error.__cause__
        finally:
            self._rule = outer
        return self._refer_to(name)

    def _refer_to(self, name: str) -> str:
        """`name`, after noting that the rule being written refers to it."""
        if self._rule is not None:
            self._same_value.setdefault(self._rule, set()).add(name)
        return name

    def check_progress(self) -> None:
        """Raises InvalidConstraint if a schema applies itself to the same value (JSON Schema core, 9.4.1)."""
        try:
            TopologicalSorter(self._same_value).prepare()
        except CycleError:
            raise _at(
                "#", InvalidConstraint("`$ref` leads back to where it began, without a step into the value")
            ) from None

    def _body(self, schema: Any, path: str, depth: int) -> str:
        if schema is False:
            raise Unsatisfiable("`false` accepts no value")
        schema = self._combined(schema, depth)
        if "enum" in schema:
            return self._values(schema)
        for keyword in sorted(schema.keys() & REFUSED):
            raise InvalidConstraint(f"`{keyword}` is not supported")
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                return self._alternatives(schema, keyword, path, depth)
        if (ref := schema.get("$ref")) is not None:
            return self.expression(self._resolve(ref), ref, depth + 1)
        return self._any_type(schema, path, depth)

    def _any_type(self, schema: Schema, path: str, depth: int) -> str:
        """One alternative for each type in `type`, else for each that a keyword applies to; without both, any value."""
        implied = [kind for kind, keywords in FAMILIES.items() if schema.keys() & keywords]
        types = types_of(schema) if "type" in schema else implied or (sorted(TYPES) if "not" in schema else [])
        if not types and "type" not in schema:
            return json_text.value(self._rules)
        if "number" in types and "integer" in types:
            types.remove("integer")
        return self._any_of([partial(self._typed, kind, schema, path, depth) for kind in types])

    def _typed(self, kind: str, schema: Schema, path: str, depth: int) -> str:
        def member(subschema: Any, place: str) -> str:
            outer, self._rule = self._rule, None
            try:
                return self.expression(subschema, f"{path}/{place}", depth + 1)
            finally:
                self._rule = outer

        if (excluded := excluded_values(kind, schema)) and kind not in ("string", "boolean"):
            raise Unsatisfiable("`not` excludes values of the type that is left")
        match kind:
            case "object":
                return object_expression(self._rules, schema, member)
            case "array":
                return self._array(schema, member, depth)
            case "string":
                return string_expression(self._rules, schema, excluded)
            case "integer":
                return integer_expression(schema)
            case "number":
                return number_expression(schema)
            case "boolean":
                return one_of(f'"{text}"' for text in ("true", "false") if json.loads(text) not in excluded)
        return '"null"'

    def _array(self, schema: Schema, member: Member, depth: int) -> str:
        may_repeat = not schema.get("uniqueItems") or schema.get("maxItems", 2) <= 1
        values = [] if may_repeat else self._listed(schema.get("items", True), depth)
        return unique_array_expression(self._rules, schema, values) if values else array_expression(schema, member)

    def _listed(self, schema: Any, depth: int) -> list[Any]:
        """The values that are valid by a schema that lists them; none if it lists none."""
        schema = self._conjoin({}, schema, depth)
        if isinstance(schema, dict) and "enum" in schema:
            return self._valid_of_enum(schema)
        return [False, True] if schema == {"type": "boolean"} else []

    def _combined(self, schema: Schema, depth: int) -> Schema:
        """`schema` without annotations, with `const`, `allOf` and a `$ref` beside other keywords merged into it."""
        if depth > MAX_DEPTH:
            raise InvalidConstraint("`$ref` and `allOf` nest too deeply, or go round in circles")
        folded: Any = evaluated({key: value for key, value in schema.items() if key in KNOWN})
        if "const" in folded:
            folded |= self._both_values(folded)
            del folded["const"]
        parts = folded.pop("allOf", [])
        if "enum" not in folded:
            parts = [*parts, *take_conditions(folded, lambda part: self._plain(part, depth + 1))]
        if "$ref" in folded and (folded.keys() != {"$ref"} or parts):
            parts = [{"$ref": folded.pop("$ref")}, *parts]
        for part in parts:
            folded = self._conjoin(folded, part, depth)
        if isinstance(folded, bool):
            return {} if folded else {"enum": []}
        return folded if folded.keys().isdisjoint({"const", "allOf"}) else self._combined(folded, depth + 1)

    def _both_values(self, schema: Schema) -> dict[str, Any]:
        value = [schema["const"]]
        return {"enum": common_values(value, schema["enum"]) if "enum" in schema else value}

    def _conjoin(self, schema: Any, part: Any, depth: int) -> Any:
        """`schema` merged with `part`; if both have alternatives, the result has one for each pair of them."""
        while isinstance(part, dict) and part:
            part = self._combined(part, depth + 1)
            if part.keys() != {"$ref"}:
                break
            part = self._resolve(part["$ref"])
        if not isinstance(schema, dict) or not isinstance(part, dict):
            return conjoin(schema, part)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema and keyword in part:
                pairs = [{"allOf": [one, other]} for one in schema[keyword] for other in part[keyword]]
                self._unfolded += len(pairs)
                schema, part = {**schema, keyword: pairs}, {key: part[key] for key in part.keys() - {keyword}}
        try:
            return conjoin(schema, part)
        except NoConjunction as keyword:
            raise InvalidConstraint(
                f"`{keyword}` in two schemas that hold together (`allOf`, `$ref`) is not supported"
            ) from None

    def _resolve(self, ref: str) -> Any:
        """The subschema that a `$ref` points to, which must be in this schema."""
        fragment = unquote(ref.removeprefix("#"))
        if not ref.startswith("#") or (fragment and not fragment.startswith("/")):
            raise InvalidConstraint(
                f"`$ref` {ref!r} is not supported; supported: `#` and JSON pointers such as `#/$defs/name`"
            )
        target = self._root
        for part in fragment.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            try:
                target = target[int(key)] if isinstance(target, list) else target[key]
            except (KeyError, IndexError, ValueError, TypeError):
                raise InvalidConstraint(f"`$ref` {ref!r} points at nothing") from None
        if not isinstance(target, dict | bool):
            raise InvalidConstraint(f"`$ref` {ref!r} points at what is no schema")
        if ref not in self._checked and not is_schema_at(fragment.split("/")[1:]):
            check_schema(target)
            self._checked.add(ref)
        return target

    def _alternatives(self, schema: Schema, keyword: str, path: str, depth: int) -> str:
        """`anyOf` and `oneOf`. The keywords beside them apply to each alternative."""
        beside = {key: value for key, value in schema.items() if key != keyword}
        branches = [self._conjoin(beside, branch, depth) if beside else branch for branch in schema[keyword]]
        if keyword == "oneOf":
            branches = told_apart(branches, lambda part: self._plain(part, depth), self._valid)
        branches = listed_together(branches)
        places = [f"{path}/{keyword}/{index}" for index in range(len(branches))]
        return self._any_of(
            [partial(self.expression, to, at, depth + 1) for at, to in zip(places, branches, strict=True)]
        )

    def _plain(self, schema: Any, depth: int) -> Any:
        """`schema`, or one by which more is valid, without `$ref`, `allOf` and conditions."""
        if self._loose is None:
            self._loose = _Translator(Rules(), loosened(self._root))
        folded = self._loose._conjoin({}, loosened(schema), depth)
        return {} if folded is True else folded

    def _any_of(self, ways: Iterable[Callable[[], str]]) -> str:
        """Any of the alternatives that some value is valid by. Raises Unsatisfiable if there is none."""
        found, reasons = [], []
        for way in ways:
            try:
                found.append(way())
            except Unsatisfiable as reason:
                reasons.append(reason)
        if found:
            return one_of(dict.fromkeys(found)) if len(found) > 1 else found[0]
        raise reasons[0] if reasons else Unsatisfiable("no type is left that a value could have")

    def _valid(self, values: Sequence[Any], schema: Any) -> list[Any]:
        """Those of the values that the schema lists that are valid by another part of it."""
        validator = Draft202012Validator(self._root, registry=Registry()).evolve(schema=schema)
        try:
            with bounded_matching():
                return [value for value in values if validator.is_valid(value)]
        except (Unresolvable, re.error) as error:
            raise InvalidConstraint(f"`enum` cannot be checked against the keywords beside it: {error}") from error

    def _valid_of_enum(self, schema: Schema) -> list[Any]:
        """The values of `enum` that are valid by all keywords beside it."""
        beside = {keyword: value for keyword, value in schema.items() if keyword != "enum"}
        return self._valid(schema["enum"], beside)

    def _values(self, schema: Schema) -> str:
        """Grammar of the values of `enum`, without those that are not valid."""
        valid = self._valid_of_enum(schema)
        if not valid:
            raise Unsatisfiable("none of the values of `enum` or `const` is valid")
        texts = [json_text.dumps(value) for value in valid]
        "".join(texts).encode()  # raises UnicodeEncodeError for half of a surrogate pair
        return factored(map(elements, dict.fromkeys(texts)))


def _at(path: str, error: InvalidConstraint) -> InvalidConstraint:
    """The error, with `path` unless it already has one."""
    error.path = error.path or path
    return error
