"""The process in which the CPU engine tries a guide first, with a real engine and without Triton."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from frontend.guided_decoding.spec import JsonSchema
from frontend.guided_decoding.to_ebnf import to_ebnf_text
from tests.e2e.conftest import ROOT

CODE = ROOT / "model_repository" / "openvino" / "1"
MAX_GROWTH = 4.0
"""That of guides.py."""
NUM_ANSWERS = 3
"""Each is random, and inside a long string some tokens take ten times as long as others."""

AMBIGUOUS = {
    "each text in many pairs": 'root ::= a\na ::= a a | "x"',
    "pairs and frames": 'root ::= a\na ::= "x" a "x" | a a | "x"',
    "stars of stars": 'root ::= (("a"*)*)*',
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "any JSON": {},
    "an object": {"type": "object", "properties": {"a": {"type": "string"}}},
    "a long string": {"type": "string", "maxLength": 500},
}
STEADY: dict[str, dict[str, str]] = {
    "a list of words": {"grammar": 'root ::= word (" " word)*\nword ::= [a-z]+'},
    "balanced brackets": {"grammar": 'root ::= "(" root ")" | "x"'},
    "a choice": {"regex": "yes|no"},
    # As the frontend sends them: GenAI's own translation of `maxLength: 500` takes all the time that a trial has.
    **{name: {"grammar": to_ebnf_text(JsonSchema(schema=schema, param="schema"))} for name, schema in SCHEMAS.items()},
}


class Trial:
    """The running process."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._input, self._output = process.stdin, process.stdout
        assert self._output.readline() == "ready\n"

    def cost(self, **guide: str) -> dict[str, Any]:
        self._input.write(json.dumps(guide) + "\n")
        self._input.flush()
        cost: dict[str, Any] = json.loads(self._output.readline())
        return cost


@pytest.fixture(scope="module")
def trial(model_repository: Path) -> Iterator[Trial]:
    command = [sys.executable, str(CODE / "guide_trial.py"), str(model_repository / "openvino" / "1" / "engine")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Trial(process)
        process.kill()


@pytest.mark.parametrize("grammar", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_a_grammar_that_reads_longer_answers_in_more_ways_grows(trial: Trial, grammar: str) -> None:
    assert trial.cost(grammar=grammar)["growth"] > MAX_GROWTH


@pytest.mark.parametrize("guide", STEADY.values(), ids=STEADY.keys())
def test_other_guides_are_not_taken_for_such(trial: Trial, guide: dict[str, str]) -> None:
    assert max(trial.cost(**guide)["growth"] for _ in range(NUM_ANSWERS)) < MAX_GROWTH


def test_what_does_not_compile_says_why(trial: Trial) -> None:
    assert "error" in trial.cost(grammar="root ::= other")
    assert trial.cost(grammar='root ::= "a"').keys() == {"start_s", "token_s", "growth"}
