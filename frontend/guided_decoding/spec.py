"""Constraints: what an answer must look like. Values only; to_ebnf.py translates them to grammars.

`param` is the request field that a constraint came in, for error messages.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
class Arguments:
    """Arguments of the tool `tool`, which is not strict: any JSON object, if its schema cannot be guaranteed.

    `schema` is None where that is known already.
    """

    tool: str
    schema: JsonSchema | None
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


Part: TypeAlias = JsonObject | JsonSchema | Arguments | Regex | Choice | Text | Sequence | OneOf | Repeated
Constraint: TypeAlias = Part | Grammar


def with_any_arguments(part: "Part") -> "Part":
    """The constraint with any JSON object as the arguments of tools that are not strict."""
    match part:
        case Sequence(parts):
            return Sequence(tuple(map(with_any_arguments, parts)))
        case OneOf(parts):
            return OneOf(tuple(map(with_any_arguments, parts)))
        case Repeated():
            return replace(part, part=with_any_arguments(part.part))
        case Arguments():
            return replace(part, schema=None)
    return part


@dataclass(frozen=True, slots=True, kw_only=True)
class Guide:
    """A grammar for the engine, in EBNF, and the tools whose arguments it allows to be any JSON object."""

    ebnf: str
    unguided_tools: tuple[str, ...] = ()


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
