"""The CPU engine writes no ill-formed UTF-8, whatever the model prefers: with a real engine, without Triton."""

import json
import subprocess
import sys
from codecs import getincrementaldecoder
from pathlib import Path

import pytest

from frontend.guided_decoding import Constraint, Grammar, JsonSchema, Regex, to_ebnf_text
from frontend.guided_decoding.grammar_check import checked
from frontend.guided_decoding.xgrammar import load_core
from frontend.text.tokenizer import Tokenizer
from tests.e2e.conftest import ROOT

WRITE = """
import json, sys, tempfile
from pathlib import Path
import numpy as np
import openvino_genai as genai
from openvino import opset13 as ops
from generation import EngineLimits, decode_request
from guide_cache import GuideCache, _rewrite

engine_dir, byte_ids, grammars = Path(sys.argv[1]), *map(json.loads, sys.argv[2:])
limits = EngineLimits(max_seq_len=512, vocab_size=32000, exclude_input_in_output=True)

def prefer_bytes(logits):
    bias = np.zeros((1, 1, logits.get_partial_shape()[2].get_length()), np.float32)
    bias[..., byte_ids] = 30.0
    return ops.add(logits, ops.constant(bias))

def guide_of(ebnf):
    inputs = {"input_ids": np.ones((1, 1), np.int32), "input_lengths": np.ones((1, 1), np.int32)}
    inputs |= {"request_output_len": np.full((1, 1), 200, np.int32)}
    inputs |= {"guided_decoding_guide_type": np.array([b"ebnf_grammar"], object)}
    inputs |= {"guided_decoding_guide": np.array([ebnf.encode()], object)}
    return decode_request(inputs, limits).generation_config.structured_output_config

with tempfile.TemporaryDirectory() as directory:
    _rewrite(engine_dir / "guide_checker", Path(directory), prefer_bytes)
    cache = GuideCache(Path(directory), genai.Tokenizer(engine_dir / "tokenizer"))
    for ebnf in grammars:
        handle = cache.steps(guide_of(ebnf), 100)
        while cache.step():
            pass
        print(json.dumps(handle.read_all()[0].generated_ids))
"""
"""Prints the tokens of a random answer by each grammar, of a model that prefers single bytes above ASCII."""

CONSTRAINTS: dict[str, Constraint] = {
    "a string": JsonSchema(schema={"type": "string"}, param="response_format"),
    "a long string": JsonSchema(schema={"type": "string", "minLength": 80, "maxLength": 100}, param="response_format"),
    "a pattern": Regex(pattern=".{80,120}", param="guided_regex"),
    "a pattern before a long one": Regex(pattern="[^a-z]{20,90}b{100,120}", param="guided_regex"),
    "a grammar": Grammar(ebnf='root ::= "b"{0,20} ([^a] [^b]){100}', param="guided_grammar"),
}


@pytest.fixture(scope="module")
def token_bytes(mixtral_tokenizer_dir: Path) -> dict[int, bytes]:
    tokenizer = Tokenizer((mixtral_tokenizer_dir / "tokenizer.json").read_bytes())
    return dict(tokenizer.bytes_of(skip_special_tokens=True))


@pytest.fixture(scope="module")
def answers(model_repository: Path, token_bytes: dict[int, bytes]) -> dict[str, bytes]:
    """What the model writes under each constraint."""
    byte_ids = [token_id for token_id, text in token_bytes.items() if len(text) == 1 and text > b"\x7f"]
    grammars = [checked(load_core(), to_ebnf_text(constraint)) for constraint in CONSTRAINTS.values()]
    engine_dir = model_repository / "openvino" / "1" / "engine"
    output = subprocess.run(
        [sys.executable, "-c", WRITE, str(engine_dir), json.dumps(byte_ids), json.dumps(grammars)],
        cwd=ROOT / "model_repository" / "openvino" / "1",
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    answers = [json.loads(line) for line in output.splitlines()]
    texts = [b"".join(token_bytes.get(token_id, b"") for token_id in answer) for answer in answers]
    return dict(zip(CONSTRAINTS, texts, strict=True))


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_a_model_that_prefers_single_bytes_writes_characters(answers: dict[str, bytes], name: str) -> None:
    text = getincrementaldecoder("utf-8")().decode(answers[name])  # raises for ill-formed bytes, not where it is cut
    assert any(character > "\x7f" for character in text)
