"""Ranges of numbers as grammar expressions, digit by digit.

Numbers in a range are written without an exponent, with up to six decimals.
"""

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import TypeAlias

from .ebnf import elements, factored, repeat
from .json_text import INTEGER

DECIMALS = 6
"""Decimals of a number in a range, at most."""
Parts: TypeAlias = list[str]
"""Expressions that follow one another: digits, classes of digits, repetitions."""
_EXACT = Decimal(2**31)
"""Limits from here on are rounded to integers: parsers may round their six decimals up to the next integer."""


def integers(low: int | None, high: int | None) -> str:
    """All integers from `low` to `high`, both included; None: no limit. Raises ValueError if there are none."""
    if low is None and high is None:
        return INTEGER
    if low is not None and high is not None and low > high:
        raise ValueError("no integer is in this range")
    alternatives: list[Parts] = []
    if low is None or low < 0:
        nearest = 1 if high is None or high >= 0 else -high
        alternatives += [['"-"', *digits] for digits in _positive(nearest, None if low is None else -low)]
    if (low is None or low <= 0) and (high is None or high >= 0):
        alternatives.append(['"0"'])
    if high is None or high > 0:
        alternatives += _positive(max(1, low or 0), high)
    return factored(alternatives)


def decimals(low: Decimal | None, high: Decimal | None, *, above: bool = False, below: bool = False) -> str:
    """Numbers from `low` to `high`; `above` and `below` leave the limits themselves out. Raises ValueError."""
    step = Decimal(1).scaleb(-DECIMALS)
    low = None if low is None else _at_least(low, step, above)
    high = None if high is None else -_at_least(-high, step, below)
    if low is not None and high is not None and low > high:
        raise ValueError("no number of six decimals is in this range")
    alternatives: list[Parts] = []
    if high is None or high >= 0:
        alternatives += _magnitudes(max(low or Decimal(0), Decimal(0)), high)
    if low is None or low < 0:
        # "-0.0" is a number, and within the range if 0 is.
        nearest = Decimal(0) if high is None or high >= 0 else -high
        farthest = None if low is None else -low
        alternatives += [['"-"', *digits] for digits in _magnitudes(nearest, farthest)]
    return factored(alternatives)


def _at_least(limit: Decimal, step: Decimal, exclusive: bool) -> Decimal:
    """The smallest multiple of `step` that is not below `limit`, or is above it if `exclusive`."""
    step = step if abs(limit) < _EXACT else Decimal(1)
    units = (limit / step).to_integral_value(ROUND_FLOOR if exclusive else ROUND_CEILING)
    return (units + 1 if exclusive else units) * step


def _positive(low: int, high: int | None) -> list[Parts]:
    """Integers from `low` >= 1 to `high`, by their number of digits."""
    longest = len(str(low if high is None else high))
    alternatives: list[Parts] = []
    for size in range(len(str(low)), longest + 1):
        first = max(low, 10 ** (size - 1))
        last = 10**size - 1 if high is None else min(high, 10**size - 1)
        alternatives += _between(str(first), str(last))
    return alternatives if high is not None else [*alternatives, ["[1-9]", *["[0-9]"] * longest, "[0-9]*"]]


def _between(low: str, high: str) -> list[Parts]:
    """Digit strings from `low` to `high`, which are of one length; a common prefix is written once."""
    rest = len(low) - 1
    if _is_all(low[1:], "0") and _is_all(high[1:], "9"):
        return [[_digit(low[0], high[0]), *["[0-9]"] * rest]]
    if low[0] == high[0]:
        return [[f'"{low[0]}"', *tail] for tail in _between(low[1:], high[1:])]
    first: list[Parts] = [[f'"{low[0]}"', *tail] for tail in _between(low[1:], "9" * rest)]
    last: list[Parts] = [[f'"{high[0]}"', *tail] for tail in _between("0" * rest, high[1:])]
    if ord(high[0]) - ord(low[0]) < 2:
        return first + last
    between = _digit(chr(ord(low[0]) + 1), chr(ord(high[0]) - 1))
    return [*first, [between, *["[0-9]"] * rest], *last]


def _digit(first: str, last: str) -> str:
    return f'"{first}"' if first == last else f"[{first}-{last}]"


def _magnitudes(low: Decimal, high: Decimal | None) -> list[Parts]:
    """Numbers from `low` >= 0 to `high`, without a sign."""
    first, first_decimals = _parts(low)
    if high is None:
        return _with_decimals(first, first_decimals, "9" * DECIMALS) + _any_decimals(first + 1, None)
    last, last_decimals = _parts(high)
    if first == last:
        return _with_decimals(first, first_decimals, last_decimals)
    alternatives = _with_decimals(first, first_decimals, "9" * DECIMALS)
    if first + 1 < last:
        alternatives += _any_decimals(first + 1, last - 1)
    return alternatives + _with_decimals(last, "0" * DECIMALS, last_decimals)


def _parts(number: Decimal) -> tuple[int, str]:
    integer, _, decimals = f"{number:.{DECIMALS}f}".partition(".")
    return int(integer), decimals


def _any_decimals(low: int, high: int | None) -> list[Parts]:
    """Numbers whose integer part is in the range, with any decimals."""
    return [[*digits, _ANY_DECIMALS] for digits in _positive(low, high)]


_ANY_DECIMALS = f'("." [0-9]{{1,{DECIMALS}}})?'


def _with_decimals(integer: int, low: str, high: str) -> list[Parts]:
    """Numbers with this integer part whose decimals are in the range; without decimals too, if zero is in it."""
    digits = elements(str(integer))
    if _is_all(low, "0") and _is_all(high, "9"):
        return [[*digits, _ANY_DECIMALS]]
    bare: list[Parts] = [digits] if _is_all(low, "0") else []
    return bare + [[*digits, '"."', *tail] for tail in _decimals(low, high) if tail]


def _decimals(low: str, high: str) -> list[Parts]:
    """Decimals from `low` to `high`, which are of one length; trailing zeros may be left out."""
    rest = len(low) - 1
    if _is_all(low, "0") and _is_all(high, "9"):
        return [[repeat("[0-9]", 0, len(low))]] if low else [[]]
    alternatives: list[Parts] = [[]] if _is_all(low, "0") else []
    if low[0] == high[0]:
        return alternatives + [[f'"{low[0]}"', *tail] for tail in _decimals(low[1:], high[1:])]
    alternatives += [[f'"{low[0]}"', *tail] for tail in _decimals(low[1:], "9" * rest)]
    if ord(high[0]) - ord(low[0]) > 1:
        between = _digit(chr(ord(low[0]) + 1), chr(ord(high[0]) - 1))
        alternatives.append([between, repeat("[0-9]", 0, rest)])
    return alternatives + [[f'"{high[0]}"', *tail] for tail in _decimals("0" * rest, high[1:])]


def _is_all(digits: str, digit: str) -> bool:
    return digits == digit * len(digits)
