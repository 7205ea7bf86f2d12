"""Write grammars in the dialect of EBNF that xgrammar reads.

Expressions are strings. All expressions of a grammar share one set of rules, so a rule is referred to by its name.

Only constructs that xgrammar 0.1.25 reads correctly are written: literals, ASCII character classes, negated ASCII
classes, repetitions. A class with a character outside ASCII compiles, but then matches single bytes.
"""

import re
from collections.abc import Iterable, Sequence, Set
from itertools import takewhile

from .errors import InvalidConstraint

ASCII = frozenset(range(128))
NON_ASCII = r"[^\u0000-\u007f]"
"""One character outside ASCII."""
EMPTY = '""'
"""The empty text."""
MAX_COUNT = 10**15
"""The largest number of repetitions that xgrammar 0.1.25 reads."""


class Rules:
    """The rules of one grammar. The name of a rule is an expression."""

    def __init__(self) -> None:
        self._bodies: dict[str, str] = {}

    def allocate(self, hint: str) -> str:
        """A new name for a rule that is defined later, so that rules can refer to themselves."""
        stem = re.sub(r"[^A-Za-z0-9_]", "_", hint)[:40] or "rule"
        name, number = stem, 0
        while name in self._bodies or name == "root" or not name[0].isalpha():
            number += 1
            name = f"{stem}_{number}" if stem[0].isalpha() else f"rule_{number}"
        self._bodies[name] = ""
        return name

    def define(self, name: str, body: str) -> str:
        """Define the rule of an allocated name."""
        self._bodies[name] = body
        return name

    def add(self, hint: str, body: str) -> str:
        """Add a rule and return its name, which is `hint` or begins with it."""
        return self.define(self.allocate(hint), body)

    def shared(self, name: str, body: str) -> str:
        """The rule `name`, defined at its first use."""
        if name not in self._bodies:
            self._bodies[name] = body
        return name

    def mark(self) -> int:
        """The number of rules, for `forget_since`."""
        return len(self._bodies)

    def forget_since(self, mark: int) -> None:
        """Remove the rules that were added since; no other rule may refer to them."""
        for name in list(self._bodies)[mark:]:
            del self._bodies[name]

    def text(self, root: str) -> str:
        """The grammar whose root rule is the expression `root`."""
        lines = [f"root ::= {root}", *(f"{name} ::= {body}" for name, body in self._bodies.items())]
        return "\n".join(lines) + "\n"


def literal(text: str) -> str:
    """Exactly `text`. Raises UnicodeEncodeError for half of a surrogate pair."""
    text.encode()
    return '"' + "".join(map(_escaped, text)) + '"'


def one_of(expressions: Iterable[str]) -> str:
    """Any one of the expressions."""
    alternatives = list(expressions)
    return alternatives[0] if len(alternatives) == 1 else "(" + " | ".join(alternatives) + ")"


def elements(text: str) -> list[str]:
    """A literal for each character."""
    return [f'"{_escaped(character)}"' for character in text]


def factored(alternatives: Iterable[Sequence[str]]) -> str:
    """Any one of some sequences, with their common beginnings written once.

    Needed for correctness: where one alternative continues another, xgrammar 0.1.25 may merge the end of the shorter
    one with the end of a third, which can then continue too. `"1.00000" | "-1.00" | "-1.001"` accepts 1.000001.
    """
    groups: dict[str | None, list[Sequence[str]]] = {}
    for alternative in alternatives:
        parts = [part for part in alternative if part != EMPTY]
        groups.setdefault(parts[0] if parts else None, []).append(parts)
    ways = []
    for first, group in groups.items():
        if first is None:
            ways.append(EMPTY)
        else:
            shared = _num_shared(group)
            tail = factored([parts[shared:] for parts in group]) if len(group) > 1 else EMPTY
            ways.append(sequence(_joined([*group[0][:shared], tail])))
    return one_of(dict.fromkeys(ways))


def _num_shared(alternatives: Sequence[Sequence[str]]) -> int:
    """How many parts at the beginning all alternatives have in common."""
    columns = zip(*alternatives, strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def _joined(parts: Iterable[str]) -> list[str]:
    """The parts, with adjacent literals merged."""
    joined: list[str] = []
    for part in parts:
        if joined and _is_literal(part) and _is_literal(joined[-1]):
            joined[-1] = joined[-1][:-1] + part[1:]
        else:
            joined.append(part)
    return joined


def _is_literal(part: str) -> bool:
    return re.fullmatch(r'"(?:[^"\\]|\\.)+"', part) is not None


def sequence(expressions: Iterable[str]) -> str:
    """One after the other."""
    return " ".join(expression for expression in expressions if expression != EMPTY) or EMPTY


def optional(expression: str) -> str:
    """`expression` or nothing."""
    return f"({expression})?"


def repeat(expression: str, minimum: int, maximum: int | None) -> str:
    """`expression`, `minimum` to `maximum` times; without an upper limit if `maximum` is None.

    Raises InvalidConstraint for more than MAX_COUNT.
    """
    if max(minimum, maximum or 0) > MAX_COUNT:
        raise InvalidConstraint(f"lengths and counts are supported up to {MAX_COUNT}")
    match minimum, maximum:
        case (_, 0):
            return EMPTY
        case (1, 1):
            return expression
        case (0, 1):
            return optional(expression)
        case (0, None):
            return f"({expression})*"
        case (_, None):
            return f"({expression}){{{minimum},}}"
    return f"({expression}){{{minimum},{maximum}}}"


def ascii_class(codes: Set[int]) -> str:
    """One character of a set of ASCII codes, which must not be empty."""
    ranges: list[list[int]] = []
    for code in sorted(codes):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return (
        "["
        + "".join(_in_class(first) + (f"-{_in_class(last)}" if last > first else "") for first, last in ranges)
        + "]"
    )


def _in_class(code: int) -> str:
    character = chr(code)
    return f"\\{character}" if character in "-^[]\\" else _visible(character)


def _escaped(character: str) -> str:
    return f"\\{character}" if character in '"\\' else _visible(character)


def _visible(character: str) -> str:
    """Control characters as `\\u` and four digits: after `\\x`, xgrammar would read any number of digits."""
    return f"\\u{ord(character):04x}" if ord(character) < 32 or ord(character) == 127 else character
