"""Regular expressions as grammars, compared with Python's own engine."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontend.errors import InvalidRequest
from frontend.guided_decoding import Regex, to_ebnf_text
from tests.frontend.guided_decoding.random_model import answer, compiled, matching


def grammar(pattern: str) -> str:
    return to_ebnf_text(Regex(pattern=pattern, param="guided_regex"))


def _quantified(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    quantifiers = st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{2,}", "+?"])
    return st.builds("({}){}".format, inner, quantifiers)


ATOMS = st.sampled_from(
    ["a", "b", r"\.", ".", "[a-c]", "[^a]", r"\d", r"\w", r"\s", r"[^\d]", r"\W", "é", "[éü]", r"\x41", r"[\-^\]]", '"']
)
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        _quantified(inner), st.builds("{}{}".format, inner, inner), st.builds("({}|{})".format, inner, inner)
    ),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(PATTERNS)
def test_every_answer_of_a_random_model_matches(pattern: str) -> None:
    compiled_grammar = compiled(grammar(pattern))
    for seed in range(3):
        text = answer(compiled_grammar, random.Random(seed), 100)
        assert text is None or re.fullmatch(pattern, text)


TEXTS = ["", "a", "ab", "abc", "aab", "b1", "1.5", "A", "é", "éü", "中", "a b", "a\nb", '"', "-", "]"]


@settings(max_examples=150, deadline=None)
@given(PATTERNS)
def test_every_text_that_matches_is_accepted(pattern: str) -> None:
    """For ASCII texts: outside ASCII, `\\w`, `\\d` and `\\s` match less than in Python."""
    texts = [text for text in TEXTS if text.isascii()]
    assert matching(grammar(pattern), texts) == [text for text in texts if re.fullmatch(pattern, text)]


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        ("^a$|^b$", ["a"]),
        ("^(a|abc)$", ["a", "abc"]),
        ("[^a]", ["A", "é", "中", '"', "-", "]"]),
        ("[à-ü]+", ["é", "éü"]),
        ("(?:ab)c?", ["ab", "abc"]),
        ("[\\u0080-\\U0010ffff]", ["é", "中"]),
    ],
)
def test_anchors_classes_and_groups(pattern: str, texts: list[str]) -> None:
    assert matching(grammar(pattern), TEXTS) == texts


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a(?=b)", "uses look-ahead or look-behind"),
        (r"(a)\1", "uses a back-reference"),
        ("a^b", "uses an anchor inside the expression"),
        (r"\bword", "uses an anchor inside the expression"),
        ("(?i)a", "has flags"),
        ("(?i:a)b", "uses flags"),
        ("(", "is not a regular expression: missing )"),
        (r"\p{L}", "is not a regular expression: bad escape"),
        ("[一-龥]", "has a class of more than 256 characters outside ASCII"),
        ("[^é]", "excludes a character outside ASCII"),
        (r"\ud800", "names a surrogate"),
    ],
)
def test_unsupported_pattern_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        grammar(pattern)
    assert message in caught.value.message
    assert caught.value.param == "guided_regex"
