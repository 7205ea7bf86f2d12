"""JSON values, strings and numbers as grammar expressions, in one layout: that of Python's json.dumps.

With separators `, ` and `: ` and no other white space, no model can fill an answer with spaces.
"""

import json
from typing import Any

from .ebnf import ASCII, NON_ASCII, Rules, ascii_class, literal, one_of, optional, repeat, sequence

COMMA = literal(", ")
COLON = literal(": ")
UNESCAPED = ASCII - set(range(32)) - set(b'"\\\x7f')
"""ASCII that stands for itself in a JSON string."""
INTEGER = '("0" | "-"? [1-9] [0-9]*)'
"""Any integer, without exponent."""
NUMBER = f'{INTEGER} ("." [0-9]+)? ([eE] [+-]? [0-9]{{1,2}})?'
"""Any number. The exponent has at most two digits, because parsers read 1e999 as infinity."""


def dumps(value: Any) -> str:
    """A JSON value in the grammar's layout. Raises ValueError for NaN and infinities."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


_NO_SURROGATE = "([0-9a-cA-CeEfF] [0-9a-fA-F] | [dD] [0-7]) [0-9a-fA-F]{2}"
"""Four hexadecimal digits that are not half of a surrogate pair."""


def _characters(rules: Rules) -> list[str]:
    """Alternatives for one character of a string. No escape is a surrogate, as half a pair of them is not text."""
    escape = rules.shared("json_escape", f'"\\\\" (["\\\\/bfnrt] | "u" {_NO_SURROGATE})')
    return [ascii_class(UNESCAPED), NON_ASCII, escape]


def string(rules: Rules, minimum: int = 0, maximum: int | None = None) -> str:
    """A string of `minimum` to `maximum` characters; without an upper limit if `maximum` is None.

    Without an upper limit its end is one right-recursive rule, for which xgrammar 0.1.25 computes nearly all token
    masks in advance. With one, a counted repetition of single characters would take 0.2 s for each token: so blocks of
    characters are counted, and single characters only at the end.
    """
    required = _exactly(rules, minimum)
    if maximum is None:
        rest = [f"{character} json_string_rest" for character in _characters(rules)]
        end = rules.shared("json_string_rest", one_of(['"\\""', *rest]))
        text = sequence(['"\\""', required, end])
        return rules.shared("json_string", text) if minimum == 0 else text
    blocks, others = divmod(maximum - minimum, _BLOCK)
    ends = [sequence([repeat(_block(rules), blocks, blocks), _up_to(rules, others)])]
    if blocks:
        ends.append(sequence([repeat(_block(rules), 0, blocks - 1), _up_to(rules, _BLOCK - 1)]))
    return sequence(['"\\""', required, one_of(ends)])


_BLOCK = 16
"""Characters in a block."""


def _block(rules: Rules) -> str:
    return rules.shared("json_block", " ".join([one_of(_characters(rules))] * _BLOCK))


def _exactly(rules: Rules, count: int) -> str:
    blocks, others = divmod(count, _BLOCK)
    return sequence([repeat(_block(rules), blocks, blocks), *[one_of(_characters(rules))] * others])


def _up_to(rules: Rules, count: int) -> str:
    """At most `count` characters, and the end of the string."""
    name = rules.shared("json_up_to_0", '"\\""')
    for longer in range(1, count + 1):
        more = [f"{character} {name}" for character in _characters(rules)]
        name = rules.shared(f"json_up_to_{longer}", one_of(['"\\""', *more]))
    return name


def other_than(names: frozenset[str]) -> str:
    """The rest of a string that is none of `names` (what is left of them at this place), without escapes."""
    heads = {name[0] for name in names if name}
    plain = UNESCAPED - {ord(head) for head in heads}
    # xgrammar cannot exclude a single character outside ASCII; so all of them are excluded.
    classes = [ascii_class(plain)] + ([] if any(head > "\x7f" for head in heads) else [NON_ASCII])
    anything = f"({one_of([ascii_class(UNESCAPED), NON_ASCII])})*"
    ways = [f"{one_of(classes)} {anything}"]
    for head in sorted(heads):
        if head > "\x7f" or ord(head) in UNESCAPED:
            ways.append(f"{literal(head)} {other_than(frozenset(name[1:] for name in names if name[:1] == head))}")
    return one_of(ways) if "" in names else optional(one_of(ways))


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
    """`minimum` to `maximum` items with commas between, in brackets; without an upper limit if `maximum` is None."""
    if maximum == 0:
        return f"{opening} {closing}"
    rest = repeat(f"{COMMA} {item}", max(minimum - 1, 0), None if maximum is None else maximum - 1)
    some = sequence([item, rest])
    return f"{opening} {optional(some) if minimum == 0 else some} {closing}"
