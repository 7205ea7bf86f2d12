"""A guide as the text of one EBNF grammar."""

from collections.abc import Iterator
from contextlib import contextmanager

from frontend.errors import InvalidRequest

from . import json_text
from .ebnf import EMPTY, Rules, elements, factored, literal, one_of, optional, repeat, sequence
from .errors import InvalidConstraint
from .json_schema import json_schema
from .regex import UnsupportedRegex, to_ebnf
from .spec import Choice, Constraint, Grammar, JsonObject, JsonSchema, OneOf, Part, Regex, Repeated, Sequence, Text


def to_ebnf_text(guide: Constraint) -> str:
    """The grammar of all answers that the guide allows, unchecked where the client wrote it.

    Raises InvalidRequest that names the field and, within a schema, the path.
    """
    if isinstance(guide, Grammar):
        return guide.ebnf
    rules = Rules()
    root = _expression(rules, guide)
    return rules.text(root)


@contextmanager
def blaming(param: str) -> Iterator[None]:
    """What is wrong inside is wrong with the field `param`."""
    try:
        yield
    except InvalidConstraint as problem:
        place = f" at {problem.path}" if problem.path else ""
        raise InvalidRequest(f"`{param}`{place}: {problem}", param=param) from problem
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"`{param}` holds half of a surrogate pair", param=param) from error
    except RecursionError as error:
        raise InvalidRequest(f"`{param}` is nested too deeply", param=param) from error
    except MemoryError as error:
        raise InvalidRequest(f"`{param}` takes too much memory to compile", param=param) from error


def _expression(rules: Rules, part: Part) -> str:
    match part:
        case Text(text):
            return literal(text) if text else EMPTY
        case Sequence(parts):
            return sequence([_expression(rules, each) for each in parts])
        case OneOf(parts):
            return one_of([rules.add("alternative", _expression(rules, each)) for each in parts])
        case Repeated():
            return _repeated(rules, part)
    with blaming(part.param):
        return _wish(rules, part)


def _repeated(rules: Rules, repeated: Repeated) -> str:
    part = rules.add("repeated", _expression(rules, repeated.part))
    if repeated.maximum == 0:
        return EMPTY
    following = sequence([literal(repeated.separator) if repeated.separator else EMPTY, part])
    maximum = None if repeated.maximum is None else repeated.maximum - 1
    some = sequence([part, repeat(following, max(repeated.minimum - 1, 0), maximum)])
    return some if repeated.minimum else optional(some)


def _wish(rules: Rules, wish: JsonObject | JsonSchema | Regex | Choice) -> str:
    match wish:
        case JsonObject():
            return json_text.any_object(rules)
        case JsonSchema():
            return json_schema(rules, wish.schema)
        case Regex():
            try:
                return to_ebnf(wish.pattern, in_json=False)
            except UnsupportedRegex as error:
                raise InvalidConstraint(f"{wish.pattern[:100]!r} {error}") from error
    if not wish.choices or not all(wish.choices):
        raise InvalidConstraint("takes at least one string, and none that is empty")
    for choice in wish.choices:
        choice.encode()  # UnicodeEncodeError: no text
    return factored(map(elements, dict.fromkeys(wish.choices)))
