"""The compiled core of xgrammar, without its Python package, which needs torch.

The protocols declare what is used here, with the names and arguments of release 0.1.25. That is the release with which
TensorRT-LLM 1.2.1 compiles grammars.
"""

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol, cast


class Grammar(Protocol):
    """A parsed grammar."""

    def to_string(self) -> str: ...
    def serialize_json(self) -> str: ...


class CompiledGrammar(Protocol):
    """A grammar compiled for one vocabulary: its token masks."""

    @property
    def memory_size_bytes(self) -> int: ...


class GrammarMatcher(Protocol):
    """The state of one answer in a grammar: which tokens may follow the ones so far."""

    def accept_token(self, token_id: int, debug_print: bool, /) -> bool: ...
    def fill_next_token_bitmask(self, bitmask: Any, index: int, debug_print: bool, /) -> bool: ...
    def is_terminated(self) -> bool: ...


class TokenizerInfo(Protocol):
    """A vocabulary that grammars can be compiled for."""

    @property
    def vocab_size(self) -> int: ...


class GrammarCompiler(Protocol):
    """Compiles grammars for one vocabulary."""

    def compile_grammar(self, grammar: Grammar, /) -> CompiledGrammar: ...


class _GrammarType(Protocol):
    # Raises RuntimeError for a grammar that cannot be parsed.
    def from_ebnf(self, ebnf_string: str, root_rule_name: str, /) -> Grammar: ...


class _GrammarCompilerType(Protocol):
    def __call__(self, info: TokenizerInfo, max_threads: int, cache: bool, cache_bytes: int, /) -> GrammarCompiler: ...


class _GrammarMatcherType(Protocol):
    def __call__(
        self, grammar: CompiledGrammar, stop_tokens: Sequence[int] | None, no_stop_token: bool, rollback: int, /
    ) -> GrammarMatcher: ...


class _TokenizerInfoType(Protocol):
    def __call__(
        self,
        encoded_vocab: Sequence[bytes],
        vocab_type: int,
        vocab_size: int | None,
        stop_token_ids: Sequence[int] | None,
        add_prefix_space: bool,
        /,
    ) -> TokenizerInfo: ...


class Core(Protocol):
    """The module's classes."""

    Grammar: _GrammarType
    GrammarCompiler: _GrammarCompilerType
    GrammarMatcher: _GrammarMatcherType
    TokenizerInfo: _TokenizerInfoType


RAW_VOCABULARY = 0
"""xgrammar's VocabType for tokens given as the bytes they stand for."""


@cache
def load_core() -> Core:
    """The core of the installed package `xgrammar`. Raises ImportError if it is not installed."""
    package = importlib.util.find_spec("xgrammar")
    folders = [] if package is None else package.submodule_search_locations or []
    for library in (found for folder in folders for found in Path(folder).glob("xgrammar_bindings*.so")):
        spec = importlib.util.spec_from_file_location("xgrammar_bindings", library)
        if spec is not None and spec.loader is not None:
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return cast(Core, module)
    raise ImportError("xgrammar 0.1.25 is not installed (pip install --no-deps xgrammar==0.1.25)")
