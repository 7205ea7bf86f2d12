"""The engine follows the grammars that the frontend compiles, though it parses them with another copy of xgrammar.

`SCHEMAS=1000 python -m pytest tests/e2e/test_guided_decoding.py` draws 1,000 JSON Schemas.
"""

import asyncio
import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema import Draft202012Validator

from frontend.errors import InvalidRequest
from frontend.guided_decoding import Choice, Constraint, GuideCompiler, JsonObject, JsonSchema, Regex, Vocabulary
from frontend.text.tokenizer import Tokenizer
from tests.e2e.conftest import Server
from tests.frontend.guided_decoding.schemas import json_schemas

NUM_SCHEMAS = int(os.environ.get("SCHEMAS", "25"))
PROMPT = [1, 733, 16289, 28793, 1824, 349, 264, 2134, 28804, 733, 28748, 16289, 28793]
END_ID = 2
MAX_TOKENS = 120


class Guided:
    """The frontend's grammar compiler and the engine, with the same tokenizer."""

    def __init__(self, server: Server, tokenizer: Tokenizer) -> None:
        self._server, self._token_bytes = server, dict(tokenizer.bytes_of(skip_special_tokens=True))
        self._loop = asyncio.new_event_loop()
        self._compiler = GuideCompiler(
            Vocabulary(token_bytes=dict(tokenizer.bytes_of(skip_special_tokens=True)), stop_token_ids=(END_ID,))
        )

    def close(self) -> None:
        self._loop.run_until_complete(self._compiler.close())
        self._loop.close()

    def compile(self, constraint: Constraint) -> str:
        return self._loop.run_until_complete(self._compiler.compile(constraint)).ebnf

    def answer(self, seed: int, **inputs: str) -> tuple[bytes, bool]:
        """The bytes that the engine generates, and whether they were cut off at MAX_TOKENS."""
        sampling = {"temperature": 1.5, "runtime_top_p": 1.0, "seed": seed, "end_id": END_ID}
        body = {"input_ids": PROMPT, "input_lengths": len(PROMPT), "request_output_len": MAX_TOKENS, "streaming": True}
        token_ids: list[int] = []
        url = f"{self._server.triton}/v2/models/openvino/generate_stream"
        with httpx.stream(
            "POST", url, json=body | sampling | inputs, headers=self._server.triton_headers, timeout=120
        ) as response:
            for line in response.iter_lines():
                if line.startswith("data:"):
                    event = json.loads(line[5:])
                    assert "error" not in event, event
                    new = event.get("output_ids", [])
                    token_ids += new if isinstance(new, list) else [new]
        cut = len(token_ids) >= MAX_TOKENS
        return b"".join(self._token_bytes[token_id] for token_id in token_ids if token_id != END_ID), cut

    def guided(self, ebnf: str, seed: int = 0) -> tuple[str, bool]:
        text, cut = self.answer(seed, guided_decoding_guide_type="ebnf_grammar", guided_decoding_guide=ebnf)
        return text.decode(errors="replace"), cut


@pytest.fixture(scope="module")
def engine(server: Server, mixtral_tokenizer_dir: Path) -> Iterator[Guided]:
    guided = Guided(server, Tokenizer((mixtral_tokenizer_dir / "tokenizer.json").read_bytes()))
    yield guided
    guided.close()


@pytest.mark.timeout(3600)
def test_answers_fit_their_schema_and_do_not_change_a_concurrent_answer(engine: Guided) -> None:
    alone = engine.answer(7)
    outcomes = {"refused": 0, "valid": 0, "cut": 0}

    @settings(
        max_examples=NUM_SCHEMAS,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(json_schemas())
    def check(schema: Any) -> None:
        try:
            ebnf = engine.compile(JsonSchema(schema=schema, param="response_format"))
        except InvalidRequest:
            outcomes["refused"] += 1
            return
        with ThreadPoolExecutor(1) as executor:
            concurrent = executor.submit(engine.answer, 7)
            text, cut = engine.guided(ebnf, seed=len(ebnf))
            assert concurrent.result() == alone
        if cut:
            outcomes["cut"] += 1
            return
        Draft202012Validator(schema).validate(json.loads(text))
        outcomes["valid"] += 1

    check()
    print(outcomes)  # noqa: T201
    assert outcomes["valid"] > 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("pattern", "constraint"),
    [
        (r"[A-Z][a-z]{2,5} é (ä|ö)+", Regex(pattern=r"[A-Z][a-z]{2,5} é (ä|ö)+", param="guided_regex")),
        (r"[^a-z\x00-\x1f]{3}", Regex(pattern=r"[^a-z\x00-\x1f]{3}", param="guided_regex")),
        (r'"[^\n]{2,40}"', JsonSchema(schema={"type": "string", "minLength": 2, "maxLength": 20}, param="x")),
        (r"-?(0|[1-9]\d*)", JsonSchema(schema={"type": "integer", "minimum": -99, "maximum": 1234}, param="x")),
        (r"\{.*\}", JsonObject(param="response_format")),
    ],
)
def test_answers_match_the_pattern_of_their_constraint(
    engine: Guided, pattern: str, constraint: Constraint, seed: int
) -> None:
    text, cut = engine.guided(engine.compile(constraint), seed)
    assert cut or re.fullmatch(pattern, text, re.DOTALL), text


@pytest.mark.parametrize("choice", ["ja nein doch", " a  b ", "Käse 🚀 \n"])
def test_spaces_and_characters_outside_the_vocabulary_are_generated(engine: Guided, choice: str) -> None:
    """SentencePiece writes a space as U+2581, and such a character as one token for each of its bytes."""
    ebnf = engine.compile(Choice(choices=(choice,), param="guided_choice"))
    assert [engine.guided(ebnf, seed) for seed in range(3)] == [(choice, False)] * 3


def refusal(server: Server, ebnf: str) -> str:
    """The error of Triton for a guide that the frontend has not compiled."""
    body = {"input_ids": PROMPT, "input_lengths": len(PROMPT), "request_output_len": 4, "streaming": True}
    guide = {"guided_decoding_guide_type": "ebnf_grammar", "guided_decoding_guide": ebnf}
    response = httpx.post(
        f"{server.triton}/v2/models/openvino/generate_stream",
        json=body | guide,
        headers=server.triton_headers,
        timeout=120,
    )
    return response.text


@pytest.mark.parametrize(
    "ebnf",
    [
        'root ::= (("a"{1000}){1000}){1000}',
        "root ::= " + "(" * 40_000 + '"a"' + ")" * 40_000,
    ],
    ids=["a billion repetitions", "40,000 parentheses"],
)
def test_a_guide_that_ends_the_process_it_is_tried_in_leaves_the_engine_as_it_was(
    server: Server, engine: Guided, ebnf: str
) -> None:
    assert "guided_decoding_guide" in refusal(server, ebnf)
    assert engine.guided('root ::= "yes"') == ("yes", False)


def test_more_distinct_guides_than_the_engine_keeps(engine: Guided) -> None:
    """The cache is cleared on the way, while requests with other guides have been answered from it."""
    for number in range(70):
        assert engine.guided(f'root ::= "{number}" "x"') == (f"{number}x", False)
    assert engine.guided('root ::= "0" "x"') == ("0x", False)
