"""A random model: it picks among the tokens that a grammar allows. Independent of every engine."""

import random
from collections.abc import Iterable
from functools import cache

import numpy as np

from frontend.guided_decoding.grammar_check import checked, compile_checked
from frontend.guided_decoding.utf8 import NON_ASCII_BYTES
from frontend.guided_decoding.xgrammar import RAW_VOCABULARY, CompiledGrammar, Core, GrammarCompiler, load_core

_TEXTS = ["é", "ü", "中", "😀", '": ', '", ', '"}', '{"', "\\u00", "00", "ab", "abc", "\n", "\t"]
TOKENS = [bytes([code]) for code in range(32, 127)] + [text.encode() for text in _TEXTS] + [b"</s>"]
END = len(TOKENS) - 1
_CLOSING = {TOKENS.index(text) for text in (b'"', b"}", b"]", b'"}')}


@cache
def core_and_compiler() -> tuple[Core, GrammarCompiler]:
    core = load_core()
    info = core.TokenizerInfo(TOKENS, RAW_VOCABULARY, len(TOKENS), [END], False)
    return core, core.GrammarCompiler(info, 1, False, -1)


def compiled(ebnf: str) -> CompiledGrammar:
    return compile_checked(*core_and_compiler(), _checked(ebnf))


def _checked(ebnf: str) -> str:
    """The text that engines get, which may be given already."""
    return ebnf if NON_ASCII_BYTES in ebnf else checked(core_and_compiler()[0], ebnf)


def matches(ebnf: str, text: str) -> bool:
    return accepts(ebnf, text.encode())


def accepts(ebnf: str, text: bytes) -> bool:
    """Whether the grammar accepts `text`, given byte by byte."""
    matcher = core_and_compiler()[0].GrammarMatcher(compiled_for_bytes(ebnf), None, True, -1)
    return all(matcher.accept_token(byte, False) for byte in text) and matcher.is_terminated()


def matching(ebnf: str, texts: Iterable[str]) -> list[str]:
    return [text for text in texts if matches(ebnf, text)]


@cache
def compiled_for_bytes(ebnf: str) -> CompiledGrammar:
    core, _ = core_and_compiler()
    # Without byte 0: xgrammar takes its token for a special token.
    vocabulary = [b"", *(bytes([byte]) for byte in range(1, 256)), b"</s>"]
    info = core.TokenizerInfo(vocabulary, RAW_VOCABULARY, 257, [256], False)
    return compile_checked(core, core.GrammarCompiler(info, 1, False, -1), _checked(ebnf))


def answer(grammar: CompiledGrammar, choose: random.Random, max_tokens: int = 400) -> str | None:
    """A random answer; None if `max_tokens` cut it. Fails where no token is allowed."""
    matcher = core_and_compiler()[0].GrammarMatcher(grammar, None, False, -1)
    mask = np.zeros((1, -(-len(TOKENS) // 32)), np.int32)
    text = b""
    for _ in range(max_tokens):
        matcher.fill_next_token_bitmask(mask, 0, False)
        allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")[: len(TOKENS)]).tolist()
        assert allowed, f"no token may follow {text!r}"
        closing = [token_id for token_id in allowed if token_id in _CLOSING]
        if END in allowed and choose.random() < 0.5:
            return text.decode()
        token_id = choose.choice(closing if closing and choose.random() < 0.25 else allowed)
        if token_id == END:
            return text.decode()
        assert matcher.accept_token(token_id, False)
        text += TOKENS[token_id]
    return None
