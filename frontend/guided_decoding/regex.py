"""Regular expressions as grammar expressions, for plain text or for the inside of a JSON string.

Supports what Python and ECMA-262 agree on; a pattern must match the complete text. `\\d`, `\\w` and `\\s` stand for
their ASCII characters, which both have in common. Not supported: what no grammar can express (look-around,
back-references) and what xgrammar 0.1.25 reads wrongly (long or negated ranges of characters outside ASCII).
"""

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .ebnf import ASCII, NON_ASCII, ascii_class, factored, literal, one_of, repeat, sequence
from .json_text import UNESCAPED

_sre = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")
"""Python's own parser of regular expressions, under the name that it has in this release."""

MAX_SPELLED_OUT = 256
"""Characters outside ASCII that one class may list: each becomes an alternative of its own."""
_UNICODE_FLAG = 32
"""re.UNICODE, which patterns without other flags have."""


class UnsupportedRegex(ValueError):
    """The pattern is wrong or not supported; the message says why."""


def regex_expression(pattern: str, *, in_json: bool) -> str:
    """An expression for all texts that match `pattern` from end to end.

    `in_json`: inside a JSON string, where quotes, backslashes and control characters are escaped. Raises
    UnsupportedRegex.
    """
    return sequence(_Writer(in_json).sequence(parse(pattern), at_start=True, at_end=True))


def parse(pattern: str) -> Any:
    """Python's syntax tree of `pattern`. Raises UnsupportedRegex."""
    try:
        parsed = _sre.parse(pattern)
    except (ValueError, OverflowError, RecursionError, _sre.error) as error:
        raise UnsupportedRegex(f"is not a regular expression: {error}") from error
    if parsed.state.flags != _UNICODE_FLAG:
        raise UnsupportedRegex("has flags")
    return parsed


def length(pattern: str) -> tuple[int, int | None]:
    """The lengths of the shortest and the longest text that `pattern` matches; None if there is no longest."""
    low, high = parse(pattern).getwidth()
    return low, None if high >= _sre.MAXREPEAT else high


@dataclass(frozen=True, slots=True, kw_only=True)
class _Characters:
    """A set of characters: some of ASCII, and either some or all of the others."""

    ascii: frozenset[int]
    others: frozenset[int] = frozenset()
    all_others: bool = False


_DIGIT = frozenset(b"0123456789")
_SPACE = frozenset(b" \t\n\r\f\v")
_WORD = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_CATEGORIES = {
    "CATEGORY_DIGIT": _Characters(ascii=_DIGIT),
    "CATEGORY_NOT_DIGIT": _Characters(ascii=ASCII - _DIGIT, all_others=True),
    "CATEGORY_SPACE": _Characters(ascii=_SPACE),
    "CATEGORY_NOT_SPACE": _Characters(ascii=ASCII - _SPACE, all_others=True),
    "CATEGORY_WORD": _Characters(ascii=_WORD),
    "CATEGORY_NOT_WORD": _Characters(ascii=ASCII - _WORD),
}
_ANY = _Characters(ascii=ASCII - set(b"\n\r"), all_others=True)


class _Writer:
    """Translates Python's syntax tree.

    `at_start`, `at_end`: nothing of the pattern comes before, or after. An anchor is supported only there.
    """

    def __init__(self, in_json: bool) -> None:
        self._in_json = in_json

    def sequence(self, items: Sequence[tuple[Any, Any]], *, at_start: bool, at_end: bool) -> list[str]:
        written: list[str] = []
        last = len(items) - 1
        for index, (operator, argument) in enumerate(items):
            start = at_start and not written
            end = at_end and all(str(after) == "AT" for after, _ in items[index + 1 :])
            written += self._item(str(operator), argument, start, end or (at_end and index == last))
        return written

    def _item(self, operator: str, argument: Any, at_start: bool, at_end: bool) -> list[str]:
        match operator:
            case "LITERAL":
                return [self._text(chr(argument))]
            case "NOT_LITERAL" | "ANY" | "IN":
                return [self._characters(_characters(operator, argument))]
            case "BRANCH":
                branches = [self.sequence(branch, at_start=at_start, at_end=at_end) for branch in argument[1]]
                return [factored(branches)]
            case "SUBPATTERN" if argument[1:3] == (0, 0):
                return ["(" + sequence(self.sequence(argument[3], at_start=at_start, at_end=at_end)) + ")"]
            case "MAX_REPEAT" | "MIN_REPEAT":
                return [self._repeat(*argument)]
            case "AT" if (str(argument) in _STARTS and at_start) or (str(argument) in _ENDS and at_end):
                return []
        raise UnsupportedRegex(
            f"uses {_NAMES.get(operator, operator.lower())}, which cannot be followed while generating"
        )

    def _repeat(self, minimum: int, maximum: Any, items: Sequence[tuple[Any, Any]]) -> str:
        repeated = sequence(self.sequence(items, at_start=False, at_end=False))
        return repeat(repeated, minimum, None if maximum is _sre.MAXREPEAT else int(maximum))

    def _text(self, character: str) -> str:
        if 0xD800 <= ord(character) <= 0xDFFF:
            raise UnsupportedRegex("names a surrogate, which is no character")
        return literal(_ESCAPES.get(character, character) if self._in_json else character)

    def _characters(self, characters: _Characters) -> str:
        codes = characters.ascii
        if self._in_json and characters.all_others:
            codes -= _RARE  # `.` and `[^x]` are not meant to match control characters
        plain = codes & UNESCAPED if self._in_json else codes
        alternatives = [ascii_class(plain)] if plain else []
        alternatives += [self._text(chr(code)) for code in sorted(codes - plain)]
        if characters.all_others:
            alternatives.append(NON_ASCII)
        alternatives += [self._text(chr(code)) for code in sorted(characters.others)]
        if not alternatives:
            raise UnsupportedRegex("has a class that no character is in")
        return one_of(alternatives)


_STARTS = {"AT_BEGINNING", "AT_BEGINNING_STRING"}
_ENDS = {"AT_END", "AT_END_STRING"}
_NAMES = {
    "ASSERT": "look-ahead or look-behind",
    "ASSERT_NOT": "look-ahead or look-behind",
    "AT": "an anchor inside the expression",
    "GROUPREF": "a back-reference",
    "GROUPREF_EXISTS": "a condition on a group",
    "SUBPATTERN": "flags",
}
_ESCAPES = {chr(code): f"\\u{code:04x}" for code in (*range(32), 127)}
_ESCAPES |= (_SHORT := {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_RARE = frozenset(map(ord, _ESCAPES.keys() - _SHORT.keys()))
"""Control characters that JSON can only write as a code point, such as `\\u0001`."""


def _characters(operator: str, argument: Any) -> _Characters:
    """The set that a class, a dot or a negated character stands for."""
    match operator:
        case "ANY":
            return _ANY
        case "NOT_LITERAL":
            return _complement(_union([("LITERAL", argument)]), words=False)
    negated = str(argument[0][0]) == "NEGATE"
    items = [(str(kind), what) for kind, what in argument[negated:]]
    words = any(kind == "CATEGORY" and str(what).endswith("WORD") for kind, what in items)
    return _complement(_union(items), words=words) if negated else _union(items)


def _union(items: Sequence[tuple[str, Any]]) -> _Characters:
    codes: set[int] = set()
    all_others = False
    for kind, what in items:
        match kind:
            case "LITERAL":
                codes.add(what)
            case "RANGE":
                first, last = what
                # A range from U+0080 to the end of Unicode stands for all characters outside ASCII.
                all_others |= first <= 0x80 and last >= 0x10FFFF
                codes.update(range(first, min(last, 127 if all_others else first + MAX_SPELLED_OUT + 128) + 1))
            case _:
                category = _CATEGORIES[str(what)]
                codes |= category.ascii
                all_others |= category.all_others
    others = frozenset(code for code in codes if code > 127)
    if len(others) > MAX_SPELLED_OUT and not all_others:
        raise UnsupportedRegex(f"has a class of more than {MAX_SPELLED_OUT} characters outside ASCII")
    return _Characters(
        ascii=frozenset(codes & ASCII), others=frozenset() if all_others else others, all_others=all_others
    )


def _complement(characters: _Characters, *, words: bool) -> _Characters:
    """`words`: `\\w` or `\\W` is excluded; as dialects differ on them outside ASCII, the complement has only ASCII."""
    if characters.others:
        raise UnsupportedRegex("excludes a character outside ASCII")
    return _Characters(ascii=ASCII - characters.ascii, all_others=not characters.all_others and not words)
