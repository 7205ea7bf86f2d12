"""The figures of tests/benchmarks/demo_answers.py, on texts whose repetitions can be counted by hand."""

import json

import pytest

from tests.benchmarks.demo_answers import CONVERSATIONS, MAX_TOKENS, Answer, figures, repeated_share


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0.0),
        ("one two three", 0.0),
        ("one two three four five", 0.0),
        ("one two three four one two three four", 1 / 5),
        ("a a a a a a", 2 / 3),
        ("One, two; three: FOUR! one two three four", 1 / 5),
    ],
)
def test_repeated_four_word_sequences_are_counted(text: str, share: float) -> None:
    assert repeated_share(text) == pytest.approx(share)


def test_figures_count_loops_and_cut_answers() -> None:
    fine = Answer(["q"], "one two three four five", is_cut=False, num_tokens=10)
    loops = Answer(["q"], "a a a a a a", is_cut=True, num_tokens=300)
    expected = f"2 answers: 33.3% repeated 4-grams, 1 loop, 1 cut at {MAX_TOKENS} tokens, 155 tokens on average"
    assert figures([fine, loops]) == expected


def test_there_are_50_conversations_and_some_have_several_turns() -> None:
    conversations = json.loads(CONVERSATIONS.read_text())
    assert len({tuple(turns) for turns in conversations}) == 50
    assert sum(len(turns) > 1 for turns in conversations) == 6
    assert all(turn.strip() for turns in conversations for turn in turns)
