"""Compare a whole config.json with what is expected of it. Pure.

Another patch release may know more fields. An unknown field that is off (null, false, zero or empty) is a warning, any
other is an error. An expected field that is missing is an error, unless some patch releases leave it out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

_MISSING = object()


@dataclass(frozen=True, slots=True)
class OneOf:
    """Accepts each of these values."""

    values: tuple[object, ...]

    def __repr__(self) -> str:
        return " or ".join(map(repr, self.values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """Dotted paths of fields with their accepted values. Those in `optional` may be missing.

    Fields in `any_value` may be missing and are not compared.
    """

    fields: Mapping[str, object]
    optional: frozenset[str]
    any_value: frozenset[str] = frozenset()

    def under(self, prefix: str) -> "Expectation":
        """The same in the object at `prefix`."""
        return Expectation(
            fields={f"{prefix}.{path}": value for path, value in self.fields.items()},
            optional=frozenset(f"{prefix}.{path}" for path in self.optional),
            any_value=frozenset(f"{prefix}.{path}" for path in self.any_value),
        )

    def __or__(self, other: "Expectation") -> "Expectation":
        return Expectation(
            fields={**self.fields, **other.fields},
            optional=self.optional | other.optional,
            any_value=self.any_value | other.any_value,
        )


class Difference(NamedTuple):
    """A field that is not as expected, and what is wrong with it."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path} {self.problem}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs: `errors` in the order of the expected fields, then of the file."""

    errors: list[Difference]
    warnings: list[Difference]

    @property
    def problem(self) -> str | None:
        """The first error, and the names of the other fields; None without errors."""
        if not self.errors:
            return None
        first, *others = self.errors
        more = f"; {len(others)} more differ: {', '.join(other.path for other in others)}" if others else ""
        return f"{first}{more}"


def compare_config(found: object, expected: Expectation) -> Comparison:
    """All differences of a parsed config.json."""
    errors = [*_wrong_fields(found, expected)]
    warnings: list[Difference] = []
    for path, value in _unknown_fields(found, expected):
        if _is_off(value):
            warnings.append(Difference(path, f"is {value!r}; this build does not know the field and ignores it"))
        else:
            errors.append(Difference(path, f"is {value!r}; accepted: no field that this build does not know"))
    return Comparison(errors, warnings)


def lookup(fields: object, path: str) -> object:
    """The value at a dotted path of nested objects; None where it ends early."""
    value = _at(fields, path)
    return None if value is _MISSING else value


def flat(fields: Mapping[str, object]) -> dict[str, object]:
    """Dotted paths and values of nested objects. An empty object is a value."""
    paths: dict[str, object] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping) and value:
            paths |= {f"{name}.{path}": inner for path, inner in flat(value).items()}
        else:
            paths[name] = value
    return paths


def _wrong_fields(found: object, expected: Expectation) -> Iterator[Difference]:
    for path, accepted in expected.fields.items():
        value = _at(found, path)
        if value is _MISSING:
            if path not in expected.optional:
                yield Difference(path, f"is missing; accepted: {accepted!r}")
        elif value not in accepted.values if isinstance(accepted, OneOf) else value != accepted:
            yield Difference(path, f"is {value!r}; accepted: {accepted!r}")


def _unknown_fields(found: object, expected: Expectation, prefix: str = "") -> Iterator[tuple[str, object]]:
    known = expected.fields.keys() | expected.any_value
    for name, value in found.items() if isinstance(found, Mapping) else ():
        path = f"{prefix}{name}"
        if path in known:
            continue
        if any(other.startswith(f"{path}.") for other in known):
            yield from _unknown_fields(value, expected, f"{path}.")
        else:
            yield path, value


def _is_off(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_off, value.values()))
    return not value


def _at(fields: object, path: str) -> object:
    for name in path.split("."):
        if not isinstance(fields, Mapping) or name not in fields:
            return _MISSING
        fields = fields[name]
    return fields
