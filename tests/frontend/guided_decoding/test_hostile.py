"""Guides that were made to hurt: each is refused with its field, or costs an engine little."""

import random

import pytest

from frontend.guided_decoding import Choice, Constraint, Grammar, GuideLimits, JsonSchema, Regex, Vocabulary
from frontend.guided_decoding.errors import InvalidConstraint
from frontend.guided_decoding.grammar_check import MAX_NESTING, check_nesting
from frontend.guided_decoding.worker import _Compiler
from frontend.guided_decoding.xgrammar import load_core

BYTES = Vocabulary(token_bytes={byte: bytes([byte]) for byte in range(1, 256)}, stop_token_ids=(256,))
RANDOM = random.Random(15)
WORDS = ["".join(RANDOM.choices("abcdefghijklmnopqrstuvwxyz", k=8)) for _ in range(12_000)]


def nested_schema(depth: int) -> dict[str, object]:
    schema: dict[str, object] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


BACKTRACKS = {"type": "string", "pattern": "^(a+)+$"}
ALMOST = "a" * 40 + "b"
REFUSED: dict[str, tuple[Constraint, str]] = {
    "17,000 parentheses": (
        Grammar(ebnf="root ::= " + "(" * 17_000 + '"a"' + ")" * 17_000, param="x"),
        f"`x`: has parentheses nested more than {MAX_NESTING} deep",
    ),
    "2,000 groups": (Regex(pattern="(" * 2_000 + "a" + ")" * 2_000, param="x"), "is not a regular expression"),
    "a schema of 2,000 levels": (JsonSchema(schema=nested_schema(2_000), param="x"), "`x` is nested too deeply"),
    "an enum of 5,000 strings": (JsonSchema(schema={"enum": WORDS[:5_000]}, param="x"), "bytes when it is compiled"),
    "a regex of 2,000 words": (
        Regex(pattern="|".join(f"{word}[a-z]*" for word in WORDS[:2_000]), param="x"),
        "bytes when it is compiled",
    ),
    "a choice of 4,000 texts": (
        Choice(choices=tuple(f"{word} {word} {word}" for word in WORDS[:4_000]), param="x"),
        "bytes when it is compiled",
    ),
    "a const that backtracks": (
        JsonSchema(schema={**BACKTRACKS, "const": ALMOST}, param="x"),
        "takes more than 1 s to",
    ),
    "an enum that backtracks": (
        JsonSchema(schema={**BACKTRACKS, "enum": [ALMOST]}, param="x"),
        "takes more than 1 s to",
    ),
    "a name that backtracks": (
        JsonSchema(schema={"properties": {ALMOST: {}}, "patternProperties": {BACKTRACKS["pattern"]: {}}}, param="x"),
        "takes more than 1 s to",
    ),
    "a length of 4,000 digits": (
        JsonSchema(schema={"type": "string", "maxLength": 10**4_000}, param="x"),
        "`x` at #: lengths and counts are supported up to 1000000000000000",
    ),
    "as many elements": (
        JsonSchema(
            schema={"properties": {"a": {"type": "array", "minItems": 10**4_000}}, "required": ["a"]}, param="x"
        ),
        "`x` at #/properties/a: lengths and counts",
    ),
    "very ambiguous": (Grammar(ebnf='root ::= (("a"*)*)*', param="x"), "`x`: is too ambiguous"),
}

HARMLESS: dict[str, Constraint] = {
    "a million repetitions": Grammar(ebnf='root ::= (("a"{100}){100}){100}', param="x"),
    "500 alternatives": Grammar(ebnf="root ::= " + " | ".join(f'"{word}" [a-z]*' for word in WORDS[:500]), param="x"),
    "an enum of 500 strings": JsonSchema(schema={"enum": WORDS[:500]}, param="x"),
    "text of up to 1,000 characters": JsonSchema(schema={"type": "string", "maxLength": 1_000}, param="x"),
}
"""Of the same kinds, but of ordinary sizes."""


@pytest.fixture(scope="module")
def worker() -> _Compiler:
    """What the worker process answers with; a process of its own would only take longer."""
    return _Compiler(load_core(), BYTES, GuideLimits())


@pytest.mark.parametrize("kind", REFUSED)
def test_a_guide_that_would_cost_an_engine_too_much_is_refused_by_name(worker: _Compiler, kind: str) -> None:
    constraint, message = REFUSED[kind]
    answer = worker.answer(constraint)
    assert message in answer["message"]
    assert answer["param"] == "x"


@pytest.mark.parametrize("kind", HARMLESS)
def test_guides_of_ordinary_size_compile(worker: _Compiler, kind: str) -> None:
    assert "ebnf" in worker.answer(HARMLESS[kind])


@pytest.mark.parametrize("depth", [MAX_NESTING, MAX_NESTING + 1])
def test_parentheses_are_counted_where_they_nest(depth: int) -> None:
    nested = "root ::= " + "(" * depth + '"a"' + ")" * depth
    if depth > MAX_NESTING:
        with pytest.raises(InvalidConstraint, match="nested more than"):
            check_nesting(nested)
    else:
        check_nesting(nested)


@pytest.mark.parametrize("text", ['"("', r'"\"("', "[(]", r"[\](]", "# (\n", '("a") '], ids=lambda text: text.strip())
def test_parentheses_that_stand_for_themselves_do_not_nest(text: str) -> None:
    check_nesting(text * 2 * MAX_NESTING)


def test_a_grammar_within_the_limit_of_nesting_fits_the_small_stack(worker: _Compiler) -> None:
    deep = "root ::= " + '("a" (' * (MAX_NESTING // 2) + '"a"' + ') | "b")' * (MAX_NESTING // 2)
    assert "ebnf" in worker.answer(Grammar(ebnf=deep, param="x"))
