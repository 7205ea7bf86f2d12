"""JSON as a grammar: values, strings and numbers in one fixed layout, so that no model can fill an answer with spaces.

The layout is that of Python's json.dumps: `, ` and `: ` between things, no other white space.
"""

import json
from typing import Any

from .ebnf import ASCII, NON_ASCII, Rules, ascii_class, literal, one_of, optional, repeat, sequence

COMMA = literal(", ")
COLON = literal(": ")
UNESCAPED = ASCII - set(range(32)) - set(b'"\\\x7f')
"""ASCII that stands for itself in a JSON string."""
INTEGER = '("0" | "-"? [1-9] [0-9]*)'
# Two digits of exponent keep it a number: 1e999 reads as infinity.
NUMBER = f'{INTEGER} ("." [0-9]+)? ([eE] [+-]? [0-9]{{1,2}})?'


def dumps(value: Any) -> str:
    """A JSON value in the grammar's layout. Raises ValueError for NaN and infinities."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def character(rules: Rules) -> str:
    """One character of a string: itself or escaped. Escapes spell no surrogates: half a pair is no text."""
    escape = f'"\\\\" (["\\\\/bfnrt] | "u" {_NO_SURROGATE})'
    return rules.shared("json_character", one_of([ascii_class(UNESCAPED), NON_ASCII, escape]))


_NO_SURROGATE = "([0-9a-cA-CeEfF] [0-9a-fA-F] | [dD] [0-7]) [0-9a-fA-F]{2}"


def string(rules: Rules, minimum: int = 0, maximum: int | None = None) -> str:
    """A string of so many characters."""
    quote = literal('"')
    body = f"{quote} {repeat(character(rules), minimum, maximum)} {quote}"
    return rules.shared("json_string", body) if (minimum, maximum) == (0, None) else body


def value(rules: Rules) -> str:
    """Any JSON value."""
    member = f"{string(rules)} {COLON} json_value"
    rules.shared("json_object", array_of('"{"', member, '"}"'))
    rules.shared("json_array", array_of('"["', "json_value", '"]"'))
    kinds = ["json_object", "json_array", string(rules), NUMBER, '"true"', '"false"', '"null"']
    return rules.shared("json_value", one_of(kinds))


def any_object(rules: Rules) -> str:
    """Any JSON object."""
    value(rules)
    return "json_object"


def array_of(opening: str, item: str, closing: str, minimum: int = 0, maximum: int | None = None) -> str:
    """So many items, with commas between, in brackets."""
    if maximum == 0:
        return f"{opening} {closing}"
    rest = repeat(f"{COMMA} {item}", max(minimum - 1, 0), None if maximum is None else maximum - 1)
    some = sequence([item, rest])
    return f"{opening} {optional(some) if minimum == 0 else some} {closing}"
