"""EBNF expressions mean to xgrammar what they should."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontend.guided_decoding import numbers
from frontend.guided_decoding.ebnf import NON_ASCII, Rules, ascii_class, elements, factored, literal
from frontend.guided_decoding.errors import InvalidConstraint
from tests.frontend.guided_decoding.random_model import compiled, matches, matching

CHARACTERS = [chr(code) for code in range(1, 128)]


@settings(max_examples=100, deadline=None)
@given(st.sets(st.integers(1, 127), min_size=1))
def test_a_class_holds_its_characters_and_no_others(codes: set[int]) -> None:
    assert matching(f"root ::= {ascii_class(codes)}", CHARACTERS) == [chr(code) for code in sorted(codes)]


def test_non_ascii_is_one_character_outside_ascii() -> None:
    texts = ["é", "中", "😀", "\x80", "a", "\x7f", "éé", ""]
    assert matching(f"root ::= {NON_ASCII}", texts) == ["é", "中", "😀", "\x80"]


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_a_literal_matches_its_text_only(text: str) -> None:
    assert matches(f"root ::= {literal(text)}", text)
    assert not matches(f"root ::= {literal(text)}", text + "0")


def test_an_alternative_that_continues_another_adds_no_other_text() -> None:
    words = ["1.00000", "-1.00", "-1.001"]
    assert matching(f"root ::= {factored(map(elements, words))}", [*words, "1.000001"]) == words


@settings(max_examples=150, deadline=None)
@given(st.sets(st.text("ab1", min_size=1, max_size=5), min_size=1, max_size=6))
def test_factored_alternatives_match_those_alternatives_only(words: set[str]) -> None:
    near = {word[:end] + more for word in words for end in range(1, 6) for more in ("", "a", "b", "1")}
    assert matching(f"root ::= {factored(map(elements, sorted(words)))}", sorted(near)) == sorted(words)


def test_rules_have_unique_names() -> None:
    rules = Rules()
    names = [rules.add(hint, literal(hint)) for hint in ("a", "a", "root", "1 b", "a_1", "ü")]
    assert len({*names, "root"}) == len(names) + 1
    assert matches(rules.text(" ".join(names)), "aaroot1 ba_1ü")


LIMIT = st.none() | st.integers(-1200, 1200)


@settings(max_examples=150, deadline=None)
@given(LIMIT, LIMIT)
def test_integers_in_a_range(low: int | None, high: int | None) -> None:
    if low is not None and high is not None and low > high:
        low, high = high, low
    near = {
        (limit or 0) + step for limit in (low, high, 0) for step in (-1000, -100, -11, -10, -9, -1, 0, 1, 9, 10, 90)
    }
    inside = [n for n in sorted(near) if (low is None or n >= low) and (high is None or n <= high)]
    ebnf = f"root ::= {numbers.integers(low, high)}"
    assert matching(ebnf, map(str, sorted(near))) == [str(number) for number in inside]
    assert matching(ebnf, ["-0", "01", "", "-", "+1", "1.0"]) == []


DECIMAL = st.none() | st.decimals(-100, 100, places=3) | st.integers(-3, 3).map(Decimal)


@settings(max_examples=150, deadline=None)
@given(DECIMAL, DECIMAL, st.booleans(), st.booleans(), st.lists(st.decimals(-101, 101, places=6), max_size=20))
def test_decimals_in_a_range(
    low: Decimal | None, high: Decimal | None, above: bool, below: bool, others: list[Decimal]
) -> None:
    if low is not None and high is not None and low >= high:
        low, high = high - 1, low + 1
    near = [limit + Decimal(step) for limit in (low, high) if limit is not None for step in ("0", "1e-6", "-1e-6", "1")]
    texts = {f"{number:.{places}f}" for number in near + others for places in range(7)} - {"-0"}
    inside = {
        text
        for text in texts
        if (low is None or Decimal(text) > low or (Decimal(text) == low and not above))
        and (high is None or Decimal(text) < high or (Decimal(text) == high and not below))
    }
    # "-0" is matched only if negative numbers are in the range.
    unsigned = {text for text in inside if not (text.startswith("-") and Decimal(text) == 0)}
    found = set(matching(f"root ::= {numbers.decimals(low, high, above=above, below=below)}", sorted(texts)))
    assert unsigned <= found <= inside


@pytest.mark.parametrize(
    ("ebnf", "message"),
    [
        ("root ::= missing", 'Rule "missing" is not defined'),
        ("answer ::= [a-z]", 'root rule with name "root" is not found'),
        ('root ::= "a" root', "can never end: root"),
        ('root ::= "x" | other\nother ::= "a" other', "can never end: other"),
        ("root ::= [à-ü]", "a character class with a character outside ASCII"),
        ("root ::= [^é]", "a character class with a character outside ASCII"),
        ('root ::= TagDispatch(("a", b))\nb ::= "b"', "dispatches on tags"),
        ("", 'root rule with name "root" is not found'),
    ],
)
def test_a_grammar_that_xgrammar_would_misread_or_that_cannot_end_is_refused(ebnf: str, message: str) -> None:
    with pytest.raises(InvalidConstraint) as caught:
        compiled(ebnf)
    assert message in str(caught.value)
    assert "/project/" not in str(caught.value)
