"""Translate a constraint to the text of one EBNF grammar."""

from collections.abc import Iterator
from contextlib import contextmanager

from frontend.errors import InvalidRequest

from . import json_text
from .ebnf import EMPTY, Rules, elements, factored, literal, one_of, optional, repeat, sequence
from .errors import InvalidConstraint
from .json_schema import json_schema
from .regex import UnsupportedRegex, regex_expression
from .spec import (
    Arguments,
    Choice,
    Constraint,
    Grammar,
    Guide,
    JsonObject,
    JsonSchema,
    OneOf,
    Part,
    Regex,
    Repeated,
    Sequence,
    Text,
)


def to_ebnf_text(constraint: Constraint) -> str:
    """The text of `to_guide`."""
    return to_guide(constraint).ebnf


def to_guide(constraint: Constraint) -> Guide:
    """The grammar of all answers that the constraint allows. A Grammar is returned as the client wrote it, unchecked.

    Raises InvalidRequest that names the field and, within a schema, the path.
    """
    if isinstance(constraint, Grammar):
        return Guide(ebnf=constraint.ebnf)
    writer = _Writer()
    root = writer.expression(constraint)
    return Guide(ebnf=writer.rules.text(root), unguided_tools=tuple(writer.unguided_tools))


@contextmanager
def naming_field(param: str) -> Iterator[None]:
    """Turn the errors of a constraint into InvalidRequest that names `param`, the field it came in."""
    try:
        yield
    except InvalidConstraint as error:
        place = f" at {error.path}" if error.path else ""
        raise InvalidRequest(f"`{param}`{place}: {error}", param=param) from error
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"`{param}` holds half of a surrogate pair", param=param) from error
    except RecursionError as error:
        raise InvalidRequest(f"`{param}` is nested too deeply", param=param) from error
    except MemoryError as error:
        raise InvalidRequest(f"`{param}` takes too much memory to compile", param=param) from error


class _Writer:
    """Translates the parts of one constraint to rules."""

    def __init__(self) -> None:
        self.rules = Rules()
        self.unguided_tools = dict[str, None]()

    def expression(self, part: Part) -> str:
        match part:
            case Text(text):
                return literal(text) if text else EMPTY
            case Sequence(parts):
                return sequence([self.expression(each) for each in parts])
            case OneOf(parts):
                return one_of([self.rules.add("alternative", self.expression(each)) for each in parts])
            case Repeated():
                return self._repeated(part)
            case Arguments():
                return self._arguments(part)
        with naming_field(part.param):
            return _simple(self.rules, part)

    def _arguments(self, arguments: Arguments) -> str:
        mark = self.rules.mark()
        if arguments.schema is not None:
            try:
                return self.expression(arguments.schema)
            except InvalidRequest:
                self.rules.forget_since(mark)
        self.unguided_tools[arguments.tool] = None
        return json_text.any_object(self.rules)

    def _repeated(self, repeated: Repeated) -> str:
        part = self.rules.add("repeated", self.expression(repeated.part))
        if repeated.maximum == 0:
            return EMPTY
        following = sequence([literal(repeated.separator) if repeated.separator else EMPTY, part])
        maximum = None if repeated.maximum is None else repeated.maximum - 1
        some = sequence([part, repeat(following, max(repeated.minimum - 1, 0), maximum)])
        return some if repeated.minimum else optional(some)


def _simple(rules: Rules, constraint: JsonObject | JsonSchema | Regex | Choice) -> str:
    """The expression for a constraint that is not composed of others."""
    match constraint:
        case JsonObject():
            return json_text.any_object(rules)
        case JsonSchema():
            return json_schema(rules, constraint.schema)
        case Regex():
            try:
                return regex_expression(constraint.pattern, in_json=False)
            except UnsupportedRegex as error:
                raise InvalidConstraint(f"{constraint.pattern[:100]!r} {error}") from error
    if not constraint.choices or not all(constraint.choices):
        raise InvalidConstraint("takes at least one string, and none that is empty")
    for choice in constraint.choices:
        choice.encode()  # raises UnicodeEncodeError for half of a surrogate pair
    return factored(map(elements, dict.fromkeys(constraint.choices)))
