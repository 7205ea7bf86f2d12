"""Strings and numbers of a JSON Schema as grammar expressions."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from math import ceil, floor, inf, nextafter
from typing import Any

from . import json_text, numbers
from .ebnf import Rules, elements, factored
from .errors import InvalidConstraint, Unsatisfiable
from .json_formats import FORMATS
from .regex import UnsupportedRegex, length, regex_expression

MAX_LIMIT = 10**30
"""Larger limits of numbers are refused."""
_MAX_EXACT = 2**53
"""From here on parsers may round a number to the nearest double, so a limit is the nearest double within it."""
_MAX_MULTIPLES = 1000
"""Multiples of a number that a grammar may list."""


def string_expression(rules: Rules, schema: Mapping[str, Any], excluded: Sequence[str] = ()) -> str:
    """`pattern` or `format`, or any string within `minLength` and `maxLength`; none of the `excluded` ones."""
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength")
    shortest, longest = int(shortest), None if longest is None else int(longest)
    if longest is not None and shortest > longest:
        raise Unsatisfiable(f"`minLength` {shortest} is more than `maxLength` {longest}")
    pattern = _pattern(schema)
    if excluded:
        return _string_other_than(excluded, pattern, shortest, longest)
    if pattern is None:
        return json_text.string(rules, shortest, longest)
    try:
        least, most = length(pattern)
        if least < shortest or (longest is not None and (most is None or most > longest)):
            raise InvalidConstraint(
                "`minLength` and `maxLength` beside a `pattern` or `format` must say no more than it does"
            )
        return f'"\\"" {regex_expression(pattern, in_json=True)} "\\""'
    except UnsupportedRegex as error:
        raise InvalidConstraint(f"`pattern` {pattern!r} {error}") from error


def _string_other_than(excluded: Sequence[str], pattern: str | None, shortest: int, longest: int | None) -> str:
    if pattern is not None or shortest > 1 or longest is not None:
        raise InvalidConstraint("`not` with strings beside `pattern`, `format` or a length is not supported")
    return f'"\\"" {json_text.other_than(frozenset([*excluded, *[""] * shortest]))} "\\""'


def _pattern(schema: Mapping[str, Any]) -> str | None:
    enforced = FORMATS.get(schema.get("format", ""))
    if enforced is None:
        return schema.get("pattern")
    if "pattern" in schema:
        raise InvalidConstraint(f"`pattern` and `format` {schema['format']!r} together are not supported")
    return enforced


def integer_expression(schema: Mapping[str, Any]) -> str:
    """Integers within the limits. With `multipleOf`, the multiples are listed, so both limits are needed."""
    low, high = _integer_limits(schema)
    multiple = schema.get("multipleOf", 1)
    if low is not None and high is not None and low > high:
        raise Unsatisfiable("no integer is within the limits")
    if multiple == 1:
        return numbers.integers(low, high)
    if low is None or high is None or high - low > _MAX_MULTIPLES * max(multiple, 1) or multiple != int(multiple):
        raise InvalidConstraint(f"`multipleOf` is supported for integers within limits, up to {_MAX_MULTIPLES} of them")
    first = -(-low // int(multiple)) * int(multiple)
    if first > high:
        raise Unsatisfiable("no multiple is within the limits")
    return factored(elements(str(number)) for number in range(first, high + 1, int(multiple)))


def number_expression(schema: Mapping[str, Any]) -> str:
    """Numbers within the limits, with up to six decimals if there are limits; multiples of an integer are integers."""
    if "multipleOf" in schema:
        return integer_expression(schema)
    low, above = _within(*_stricter(schema.get("minimum"), schema.get("exclusiveMinimum"), max), inf)
    high, below = _within(*_stricter(schema.get("maximum"), schema.get("exclusiveMaximum"), min), -inf)
    if low is None and high is None:
        return json_text.NUMBER
    try:
        return numbers.decimals(low, high, above=above, below=below)
    except ValueError as error:
        raise Unsatisfiable(str(error)) from error


def _stricter(inclusive: Any, exclusive: Any, strictest: Any) -> tuple[Decimal | None, bool]:
    """The stricter of two limits, and whether it is itself excluded."""
    limits = [_limit(limit) for limit in (exclusive, inclusive) if limit is not None]
    if not limits:
        return None, False
    limit = strictest(limits)
    return limit, exclusive is not None and _limit(exclusive) == limit


def _within(limit: Decimal | None, exclusive: bool, inside: float) -> tuple[Decimal | None, bool]:
    """The limit, or the nearest double in the direction of `inside` if it is large; and whether it is excluded."""
    if limit is None or abs(limit) <= _MAX_EXACT:
        return limit, exclusive
    nearest = float(limit)
    is_outside = Decimal(nearest) < limit if inside > 0 else Decimal(nearest) > limit
    if is_outside or (exclusive and Decimal(nearest) == limit):
        nearest = nextafter(nearest, inside)
    return Decimal(nearest), False


def _limit(limit: Any) -> Decimal:
    if abs(limit) > MAX_LIMIT:
        raise InvalidConstraint(f"limits of numbers are supported up to 10^30; found {limit}")
    return Decimal(str(limit))


def _integer_limits(schema: Mapping[str, Any]) -> tuple[int | None, int | None]:
    low, above = _within(*_stricter(schema.get("minimum"), schema.get("exclusiveMinimum"), max), inf)
    high, below = _within(*_stricter(schema.get("maximum"), schema.get("exclusiveMaximum"), min), -inf)
    least = None if low is None else floor(low) + 1 if above else ceil(low)
    most = None if high is None else ceil(high) - 1 if below else floor(high)
    return least, most
