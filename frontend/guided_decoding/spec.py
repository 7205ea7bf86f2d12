"""Constraints: what an answer must look like. Values only; to_ebnf.py translates them to grammars.

`param` is the request field that a constraint came in, for error messages.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonObject:
    """Any JSON object."""

    param: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonSchema:
    """A JSON value that is valid by a schema."""

    schema: Mapping[str, Any] | bool
    param: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Regex:
    """Text that matches a regular expression from end to end."""

    pattern: str
    param: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One of some strings."""

    choices: tuple[str, ...]
    param: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """A grammar in xgrammar's EBNF with the root rule `root`. Cannot be a part of another constraint."""

    ebnf: str
    param: str


@dataclass(frozen=True, slots=True)
class Text:
    """Exactly this text. Never a client's, so it has no `param`."""

    text: str


@dataclass(frozen=True, slots=True)
class Sequence:
    """One part after the other."""

    parts: tuple["Part", ...]


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of the parts."""

    parts: tuple["Part", ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """`part`, `minimum` to `maximum` times with `separator` between; without an upper limit if `maximum` is None."""

    part: "Part"
    separator: str
    minimum: int = 0
    maximum: int | None = None


Part: TypeAlias = JsonObject | JsonSchema | Regex | Choice | Text | Sequence | OneOf | Repeated
Constraint: TypeAlias = Part | Grammar


def param_of(constraint: Constraint) -> str:
    """The request field that a constraint came in; of a composed one, that of its first part that has one."""
    match constraint:
        case Sequence(parts) | OneOf(parts):
            return next(filter(None, map(param_of, parts)), "")
        case Repeated():
            return param_of(constraint.part)
        case Text():
            return ""
    return constraint.param
