"""What a client may ask an answer to look like, and the grammar that makes it so.

A guide carries the name of the field it came in, so that whoever refuses it can say which.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from frontend.errors import InvalidRequest

from . import json_text
from .ebnf import Rules, literal, one_of
from .json_schema import json_schema
from .problems import GuideProblem
from .regex import UnsupportedRegex, to_ebnf

GuideKind = Literal["json_object", "json_schema", "regex", "choice", "grammar"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GuideSpec:
    """A wish of a client's.

    `content`: nothing for json_object, a JSON Schema (parsed) for json_schema, the pattern for regex, the strings for
    choice, EBNF for grammar. `param`: the field to name when it cannot be had.
    """

    kind: GuideKind
    content: Any = None
    param: str


def to_ebnf_text(spec: GuideSpec) -> str:
    """The guide as one EBNF text, to be compiled before it is sent. Raises InvalidRequest."""
    if spec.kind == "grammar":
        return _text(spec.content, spec)
    rules = Rules()
    root = expression(rules, spec)
    return rules.text(root)


def expression(rules: Rules, spec: GuideSpec) -> str:
    """The guide as an expression, whose rules join `rules`; not for a grammar. Raises InvalidRequest."""
    try:
        return _EXPRESSIONS[spec.kind](rules, spec)
    except GuideProblem as problem:
        place = f" at {problem.path}" if problem.path else ""
        raise InvalidRequest(f"`{spec.param}`{place}: {problem}", param=spec.param) from problem
    except UnsupportedRegex as problem:
        raise InvalidRequest(f"`{spec.param}` {problem}", param=spec.param) from problem
    except RecursionError as error:
        raise InvalidRequest(f"`{spec.param}` is nested too deeply", param=spec.param) from error
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"`{spec.param}` holds half of a surrogate pair", param=spec.param) from error


def _choice(rules: Rules, spec: GuideSpec) -> str:
    if not isinstance(spec.content, list | tuple) or not spec.content:
        raise GuideProblem("takes a list of at least one string")
    return one_of(dict.fromkeys(literal(_text(choice, spec)) for choice in spec.content))


def _text(content: Any, spec: GuideSpec) -> str:
    if not isinstance(content, str) or not content:
        raise InvalidRequest(f"`{spec.param}` takes text that is not empty; found {content!r}"[:200], param=spec.param)
    return content


_EXPRESSIONS: dict[GuideKind, Callable[[Rules, GuideSpec], str]] = {
    "json_object": lambda rules, _: json_text.any_object(rules),
    "json_schema": lambda rules, spec: json_schema(rules, spec.content),
    "regex": lambda _, spec: to_ebnf(_text(spec.content, spec), in_json=False),
    "choice": _choice,
}
