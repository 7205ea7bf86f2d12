"""Compile a grammar with xgrammar, after checking that every rule of it can end and that xgrammar reads it correctly.

What is compiled, and what engines get, writes well-formed UTF-8 only: `checked` returns it.

The check reads the syntax tree that xgrammar 0.1.25 serialises (`Grammar.serialize_json`).
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import partial
from typing import Any

from .errors import InvalidConstraint
from .utf8 import well_formed
from .xgrammar import CompiledGrammar, Core, GrammarCompiler


class _Kind(IntEnum):
    """The members of xgrammar's GrammarExprType that are used here."""

    CHARACTER_CLASS = 1
    CHARACTER_CLASS_STAR = 2
    RULE_REF = 4
    SEQUENCE = 5
    CHOICES = 6
    TAG_DISPATCH = 7
    REPEAT = 8


MAX_NESTING = 500
"""Parentheses within parentheses. xgrammar takes up to 1 KB of stack for each: 17,000 end a process with 8 MiB."""
_NOT_NESTING = re.compile(r'"(?:[^"\\\n]|\\.)*"|\[(?:[^\]\\\n]|\\.)*\]|#[^\n]*|[^()"\[#]+|["\[]')
"""Literals, character classes and comments, whose parentheses stand for themselves, and all other text between."""


def check_nesting(text: str) -> None:
    """Raises InvalidConstraint if the parentheses of an EBNF text are nested too deeply for the engine's stack."""
    depth = 0
    for parenthesis in _NOT_NESTING.sub("", text):
        depth += 1 if parenthesis == "(" else -1
        if depth > MAX_NESTING:
            raise InvalidConstraint(f"has parentheses nested more than {MAX_NESTING} deep")


def checked(core: Core, text: str) -> str:
    """The EBNF text that engines get for `text`, whose root is the rule `root`. Raises InvalidConstraint."""
    check_nesting(text)
    with _naming_errors():
        _check(_tree(core, text))
        return well_formed(text, partial(_class_codes, core))


def compile_checked(core: Core, compiler: GrammarCompiler, text: str) -> CompiledGrammar:
    """The compiled grammar of a text that `checked` returned. Raises InvalidConstraint."""
    with _naming_errors():
        return compiler.compile_grammar(core.Grammar.from_ebnf(text, "root"))


def _tree(core: Core, text: str) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(core.Grammar.from_ebnf(text, "root").serialize_json())
    return tree


def _class_codes(core: Core, text: str) -> frozenset[int]:
    """The ASCII codes that a character class names, negated or not, as xgrammar reads it."""
    tree = _tree(core, f"root ::= {text}")
    nodes = [_node(tree, number) for number in range(len(tree["grammar_expr_data"]))]
    [ranges] = [data[1:] for kind, data in nodes if kind == _Kind.CHARACTER_CLASS]
    return frozenset(
        code for first, last in zip(ranges[::2], ranges[1::2], strict=True) for code in range(first, last + 1)
    )


@contextmanager
def _naming_errors() -> Iterator[None]:
    """Turn xgrammar's errors into InvalidConstraint."""
    try:
        yield
    except (RuntimeError, UnicodeDecodeError) as error:
        raise InvalidConstraint(f"is no grammar that xgrammar compiles: {_message(error)}") from error


def _message(error: RuntimeError | UnicodeDecodeError) -> str:
    """xgrammar's message without the time and the place in its source.

    A message that quotes half of a character is not UTF-8: then pybind11 raises UnicodeDecodeError, whose `object` is
    the message.
    """
    message = error.object.decode(errors="replace") if isinstance(error, UnicodeDecodeError) else str(error)
    return message.partition("] ")[2].partition(": ")[2].strip()[:300] or "it cannot be read"


def _check(tree: dict[str, Any]) -> None:
    names = [rule[0] for rule in tree["rules"]]
    bodies = [rule[1] for rule in tree["rules"]]
    nodes = [_node(tree, number) for number in range(len(tree["grammar_expr_data"]))]
    for kind, data in nodes:
        if kind in (_Kind.CHARACTER_CLASS, _Kind.CHARACTER_CLASS_STAR) and max(data[1:], default=0) > 127:
            raise InvalidConstraint(
                "has a character class with a character outside ASCII, which xgrammar 0.1.25 reads as bytes; "
                'supported: alternatives such as ("ä" | "ö"), and [^\\x00-\\x7f] for any character outside ASCII'
            )
        if kind == _Kind.TAG_DISPATCH:
            raise InvalidConstraint("dispatches on tags, which is not supported")
    endless = [names[rule] for rule in _reached(tree["root_rule_id"], bodies, nodes) - _finite(bodies, nodes)]
    if endless:
        raise InvalidConstraint(f"can never end: {', '.join(sorted(endless))[:200]}")


def _node(tree: dict[str, Any], number: int) -> tuple[int, list[int]]:
    """Kind and operands of an expression. In the JSON, each of the two arrays has the other one's name."""
    data, start = tree["grammar_expr_indptr"], tree["grammar_expr_data"][number]
    return data[start], data[start + 2 : start + 2 + data[start + 1]]


Nodes = list[tuple[int, list[int]]]


def _references(number: int, nodes: Nodes) -> Iterator[int]:
    """The rules that an expression refers to."""
    pending = [number]
    while pending:
        kind, data = nodes[pending.pop()]
        if kind in (_Kind.SEQUENCE, _Kind.CHOICES):
            pending += data
        elif kind in (_Kind.RULE_REF, _Kind.REPEAT):
            yield data[0]


def _reached(root: int, bodies: list[int], nodes: Nodes) -> set[int]:
    """The rules that the root refers to, directly or through others, and the root itself."""
    reached, pending = {root}, [root]
    while pending:
        new = set(_references(bodies[pending.pop()], nodes)) - reached
        reached |= new
        pending += new
    return reached


def _finite(bodies: list[int], nodes: Nodes) -> set[int]:
    """The rules that some finite text matches: first those without references, then those that refer to these."""
    finite: set[int] = set()
    while new := {rule for rule, body in enumerate(bodies) if rule not in finite and _can_end(body, nodes, finite)}:
        finite |= new
    return finite


def _can_end(number: int, nodes: Nodes, finite: set[int]) -> bool:
    """Whether some finite text matches an expression, given the rules that are known to be `finite`."""
    match nodes[number]:
        case _Kind.SEQUENCE, data:
            return all(_can_end(part, nodes, finite) for part in data)
        case _Kind.CHOICES, data:
            return any(_can_end(part, nodes, finite) for part in data)
        case _Kind.RULE_REF, data:
            return data[0] in finite
        case _Kind.REPEAT, data:
            return data[1] == 0 or data[0] in finite
    return True
