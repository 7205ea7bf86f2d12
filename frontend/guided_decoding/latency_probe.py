"""Generate a few random answers with a compiled grammar, to refuse a grammar that would slow down the engine.

A very ambiguous grammar such as `("a"*)*` compiles at once and then takes seconds for each token, in the step that all
requests of the batch share.
"""

import random
import re
import time
from collections.abc import Iterable

from .errors import InvalidConstraint
from .xgrammar import CompiledGrammar, Core

NUM_PROBES = 5
"""Random answers that are generated."""
MAX_TOKENS = 400
"""Length of one of them."""
MAX_PROBE_S = 1.0
"""Processor time for all of them, which does not pass while other processes run. A grammar not slow by then is fine."""
MAX_TOKEN_S = 0.2
"""A grammar is slow if `_SLOW_TOKENS` repetitions of a token in a row take longer than this each."""
_SLOW_TOKENS = 3
_GROWTH = 8
"""A grammar is slow too if a token's repetitions come to take this many times as long as the first: they go on so."""
_MIN_RUN = 24
"""Repetitions of a token from which on growth counts."""
_NOTICEABLE_S = 0.01
"""Time per token up to which growth does not count."""
_REPEAT_PROBABILITY = 0.98
"""Of the last token, where the grammar allows it again: repetition is what ambiguous grammars are slow at."""


def probe_latency(core: Core, compiled: CompiledGrammar, vocab_size: int, stop_token_ids: frozenset[int]) -> None:
    """Raises InvalidConstraint if generating with `compiled` is slow, or leads to where no token is allowed."""
    probe = _Probe(core, compiled, vocab_size, stop_token_ids)
    deadline = time.thread_time() + MAX_PROBE_S
    for seed in range(NUM_PROBES):
        probe.run(random.Random(seed), deadline)


class _Probe:
    """Generates random answers with one grammar."""

    def __init__(self, core: Core, compiled: CompiledGrammar, vocab_size: int, stop_token_ids: frozenset[int]) -> None:
        self._core, self._compiled = core, compiled
        self._mask = bytearray(4 * -(-vocab_size // 32))
        self._padding = range(vocab_size, 8 * len(self._mask))  # bits beyond the vocabulary, which xgrammar sets
        self._stop_token_ids = stop_token_ids

    def run(self, rng: random.Random, deadline: float) -> None:
        """Generate one answer, until only an end token may follow."""
        matcher = self._core.GrammarMatcher(self._compiled, None, False, -1)
        bits = memoryview(self._mask).cast("i", (1, len(self._mask) // 4))
        token_id, run = -1, list[float]()
        for _ in range(MAX_TOKENS):
            began = time.thread_time()
            matcher.fill_next_token_bitmask(bits, 0, False)
            took_s = time.thread_time() - began
            if not self._can_continue() or began > deadline:
                return
            if token_id < 0 or not self._mask[token_id // 8] >> token_id % 8 & 1 or rng.random() > _REPEAT_PROBABILITY:
                other = _random_token(self._mask, rng)
                token_id, run = other, run if other == token_id else []
            began = time.thread_time()
            accepted = matcher.accept_token(token_id, False)
            assert accepted, "xgrammar refuses a token that its own mask allows"
            run.append(took_s + time.thread_time() - began)
            if _is_slow(run):
                raise InvalidConstraint(
                    "is too ambiguous: one text can be read in so many ways that it is slow to follow"
                )

    def _can_continue(self) -> bool:
        """Whether a token other than an end token may follow; clears the end tokens' bits of the mask."""
        _clear(self._mask, self._padding)
        if not any(self._mask):
            raise InvalidConstraint("leads to a place where no token of the model can follow")
        _clear(self._mask, self._stop_token_ids)
        return any(self._mask)


def _is_slow(run: list[float]) -> bool:
    """`run`: seconds for each repetition of one token."""
    latest = min(run[-_SLOW_TOKENS:])
    if len(run) >= _SLOW_TOKENS and latest > MAX_TOKEN_S:
        return True
    return len(run) >= _MIN_RUN and latest > max(_NOTICEABLE_S, _GROWTH * max(run[1:5]))


def _clear(mask: bytearray, token_ids: Iterable[int]) -> None:
    for token_id in token_ids:
        mask[token_id // 8] &= ~(1 << token_id % 8)


_NONZERO_BYTE = re.compile(rb"[^\0]")


def _random_token(mask: bytearray, rng: random.Random) -> int:
    """One of the token ids whose bits are set; at least one must be."""
    found = _NONZERO_BYTE.search(mask, rng.randrange(len(mask))) or _NONZERO_BYTE.search(mask)
    assert found is not None
    return 8 * found.start() + rng.choice([bit for bit in range(8) if mask[found.start()] >> bit & 1])
