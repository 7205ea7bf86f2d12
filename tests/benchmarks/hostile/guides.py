"""Guides that take long to compile, or long for each token, or memory."""

import random
from collections.abc import Iterator
from typing import Any

from .attack import CHAT, Attack, post, post_each

_ASK = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 4}
_rng = random.Random(0)


def _words(count: int, length: int) -> list[str]:
    return ["".join(_rng.choices("abcdefghijklmnopqrstuvwxyz", k=length)) for _ in range(count)]


def guided(**fields: Any) -> dict[str, Any]:
    """A short chat body with a guide."""
    return _ASK | fields


def schema(content: dict[str, Any]) -> dict[str, Any]:
    """A short chat body with a JSON schema."""
    return guided(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": content}})


def _distinct(count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        properties = {f"a{number}_{place}": {"type": "integer"} for place in range(4)}
        yield schema({"type": "object", "properties": properties, "required": list(properties)})


def _slow(count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        yield guided(guided_regex=f"({'|'.join(_words(1500, 6))}){{1,{number + 20}}}")


def _all_of(depth: int) -> dict[str, Any]:
    """2 to the power of `depth` cases, in a short schema."""
    cases = [{"anyOf": [{"required": [f"a{n}"]}, {"required": [f"b{n}"]}]} for n in range(depth)]
    return {"type": "object", "allOf": cases}


_NESTED = '((("a"{1000}){1000}){1000})'

ATTACKS = (
    Attack("slow-guides-12", post_each(CHAT, lambda: _slow(12), 12)),
    Attack("choice-5000", post(CHAT, guided(guided_choice=_words(5000, 25)))),
    Attack("words-3000", post(CHAT, guided(guided_regex="|".join(_words(3000, 8))))),
    Attack("word-stars-3100", post(CHAT, guided(guided_regex="|".join(f"{word}[a-z]*" for word in _words(3100, 6))))),
    Attack("parentheses-17000", post(CHAT, guided(guided_grammar="root ::= " + "(" * 17_000 + '"a"' + ")" * 17_000))),
    Attack("repeats-of-repeats", post(CHAT, guided(guided_grammar=f"root ::= {_NESTED}"))),
    Attack("distinct-guides-80", post_each(CHAT, lambda: _distinct(80), 4)),
    Attack("all-of-any-of", post(CHAT, schema(_all_of(24)))),
    Attack("regex-nested-stars", post(CHAT, guided(guided_regex="(((a*)*)*)*b"))),
    Attack("regex-counted", post(CHAT, guided(guided_regex=r"(\w{1,200}\s){1,200}"))),
    Attack("regex-backwards", post(CHAT, guided(guided_regex="(a|b)*a(a|b){200}"))),
    Attack("max-length", post(CHAT, schema({"type": "string", "maxLength": 10**6}))),
    Attack("left-recursion", post(CHAT, guided(guided_grammar='root ::= a\na ::= a a | "x" | ""'))),
    Attack("ambiguous", post(CHAT, guided(guided_grammar='root ::= a\na ::= "x" a "x" | a a | "x"', max_tokens=200))),
)
