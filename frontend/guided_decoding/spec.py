"""What an answer shall look like: wishes of a client's, put together as the API needs them.

Values that a request is translated into and a compiler takes; they know nothing of grammars. `param` is the field a
wish came in, to be named when it cannot be had.
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
    """Text of a grammar in xgrammar's EBNF with the root rule `root`. Cannot be a part of another guide."""

    ebnf: str
    param: str


@dataclass(frozen=True, slots=True)
class Text:
    """Exactly this text. Ours, not a client's: it has no field to name."""

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
    """A part so many times, with a separator between; without a limit if `maximum` is None."""

    part: "Part"
    separator: str
    minimum: int = 0
    maximum: int | None = None


Part: TypeAlias = JsonObject | JsonSchema | Regex | Choice | Text | Sequence | OneOf | Repeated
Constraint: TypeAlias = Part | Grammar


def param_of(guide: Constraint) -> str:
    """The field that a guide came in; of a composed one, the first."""
    match guide:
        case Sequence(parts) | OneOf(parts):
            return next(filter(None, map(param_of, parts)), "")
        case Repeated():
            return param_of(guide.part)
        case Text():
            return ""
    return guide.param
