"""The vocabulary of TensorRT-LLM's guided decoding, followed by the matcher of the xgrammar release that it has.

An answer ends where its grammar ends: with the `end_id` that the engine watches for. With another stop token the engine
would go on, ask the matcher for more, and end all active requests with the error that it raises.
"""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from build_engine.checkpoint import Checkpoint
from build_engine.end_tokens import read_end_tokens
from build_engine.mixtral import to_mixtral_config
from build_engine.tensorrt_llm.tokenizer_info import tokenizer_info
from frontend.engine_dir import read_engine_dir
from frontend.generation import GenerationRequest, SamplingParams, TokenChunk
from frontend.guided_decoding.xgrammar import load_core
from frontend.text.detokenizer import AnswerDecoder
from frontend.text.tokenizer import Tokenizer as FrontendTokenizer
from tests.frontend.chatml_tokenizer import write_chatml_tokenizer
from tests.tiny_mixtral import TINY

STRINGS = r'root ::= "[" "\"" [^"\\\u0000-\u001f]{1,8} "\"" "]"'
"""JSON with a string of any characters: special tokens written as text would fit into it."""

GRAMMARS = [STRINGS, 'root ::= "yes" | "no" | "yesterday"', 'root ::= "a"*']
END, OTHER = "<|im_end|>", "<|endoftext|>"


def info_of(directory: Path, eos_of_generation: list[int] | None) -> tuple[dict[str, Any], int]:
    """The tokenizer info of a checkpoint with ChatML tokenizer files, and its `end_id`."""
    write_chatml_tokenizer(directory)
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": eos_of_generation}))
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    config = to_mixtral_config({**TINY, "vocab_size": 400})
    end_tokens = read_end_tokens(directory, tokenizer, config.vocab_size)
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["model"]["end_tokens"] = end_tokens.to_json()
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return tokenizer_info(Checkpoint(directory, config, {}, end_tokens, {}), tokenizer), end_tokens.end_id


def generate(info: dict[str, Any], end_id: int, ebnf: str, choose: random.Random) -> list[int]:
    """A guided answer, token by token as TensorRT-LLM's executor and guidedDecoder.cpp take them in turn.

    The executor looks at `end_id` alone. Without it, the next turn asks the matcher for the next mask.
    """
    core: Any = load_core()
    metadata = json.loads(core.TokenizerInfo._detect_metadata_from_hf(info["tokenizer_str"]))
    tokens, stop_token_ids = info["encoded_vocab"], info["stop_token_ids"]
    vocabulary = core.TokenizerInfo(
        tokens, metadata["vocab_type"], len(tokens), stop_token_ids, metadata["add_prefix_space"]
    )
    grammar = core.GrammarCompiler(vocabulary, 1, False, -1).compile_grammar(core.Grammar.from_ebnf(ebnf, "root"))
    matcher = core.GrammarMatcher(grammar, None, False, -1)
    mask = np.zeros((1, -(-len(tokens) // 32)), np.int32)
    generated: list[int] = []
    for _ in range(200):
        assert not matcher.is_terminated(), "the engine goes on after the grammar has ended"
        matcher.fill_next_token_bitmask(mask, 0, False)
        allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")[: len(tokens)]).tolist()
        token_id = end_id if end_id in allowed and choose.random() < 0.5 else choose.choice(allowed)
        if token_id == end_id:
            return generated
        assert matcher.accept_token(token_id, False)
        generated.append(token_id)
    raise AssertionError("the answer does not end")


@pytest.mark.parametrize("ebnf", GRAMMARS)
@pytest.mark.parametrize("eos", [None, [0], [2], [0, 2], [2, 0], [1, 2, 0]], ids=str)
def test_a_guided_answer_ends_with_the_id_that_the_engine_watches_for(
    tmp_path: Path, eos: list[int] | None, ebnf: str
) -> None:
    info, end_id = info_of(tmp_path, eos)
    assert end_id == (eos or [2])[0]
    files = read_engine_dir(tmp_path)
    token_bytes = FrontendTokenizer(files.tokenizer_json).bytes_of(skip_special_tokens=True)
    for seed in range(20):
        token_ids = generate(info, end_id, ebnf, random.Random(seed))
        params = SamplingParams(max_tokens=300, temperature=1, top_p=1, seed=0)
        request = GenerationRequest(prompt_token_ids=[1], sampling_params=params, end_tokens=files.end_tokens)
        decoder = AnswerDecoder(request, token_bytes, with_tokens=False)
        text = decoder.feed(TokenChunk(token_ids)).text + decoder.finish().text
        assert not decoder.is_complete, "the frontend takes a token of the answer for its end"
        assert decoder.outcome.ending.finish_reason == "stop"
        assert json.loads(text) if ebnf == STRINGS else text in ("yes", "no", "yesterday") or set(text) <= {"a"}


def test_a_grammar_generates_no_special_token_as_text(tmp_path: Path) -> None:
    info, _ = info_of(tmp_path, [2])
    assert [info["encoded_vocab"][token_id] for token_id in (0, 1, 2)] == ["", "", ""]
    assert END not in info["encoded_vocab"]
    assert OTHER not in info["encoded_vocab"]
