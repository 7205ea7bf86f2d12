"""A short answer by a compiled grammar, to see that following it costs the engine nothing that it cannot afford.

A grammar that is ambiguous enough, such as `("a"*)*`, compiles in no time and then takes seconds for each token, in the
step that all requests of the batch share.
"""

import random
import re
import time
from collections.abc import Iterable

from .problems import GuideProblem
from .xgrammar_core import CompiledGrammar, Core

NUM_ANSWERS = 3
NUM_TOKENS = 400
MAX_STEP_S = 0.05
"""Time for one token, on a machine that may be busy: what takes it three times running is refused."""
_SLOW_STEPS = 3
_STAY = 0.95
"""How often a token follows itself if it may: repetition is what ambiguous grammars are slow at."""


def try_grammar(core: Core, compiled: CompiledGrammar, vocab_size: int, stop_token_ids: frozenset[int]) -> None:
    """Follow `compiled` for some tokens. Raises GuideProblem if it is slow, or leads where no token is allowed."""
    answer = _Answer(core, compiled, vocab_size, stop_token_ids)
    for seed in range(NUM_ANSWERS):
        answer.follow(random.Random(seed))


class _Answer:
    """Answers by one grammar."""

    def __init__(self, core: Core, compiled: CompiledGrammar, vocab_size: int, stop_token_ids: frozenset[int]) -> None:
        self._core, self._compiled = core, compiled
        self._mask = bytearray(4 * -(-vocab_size // 32))
        self._behind = range(vocab_size, 8 * len(self._mask))  # where all bits are set
        self._stop_token_ids = stop_token_ids

    def follow(self, choose: random.Random) -> None:
        """Up to where only an end may follow."""
        matcher = self._core.GrammarMatcher(self._compiled, None, False, -1)
        bits = memoryview(self._mask).cast("i", (1, len(self._mask) // 4))
        slow, token_id = 0, -1
        for _ in range(NUM_TOKENS):
            began = time.monotonic()
            matcher.fill_next_token_bitmask(bits, 0, False)
            took_s = time.monotonic() - began
            if not self._may_go_on():
                return
            if token_id < 0 or not self._mask[token_id // 8] >> token_id % 8 & 1 or choose.random() > _STAY:
                token_id = _some_token(self._mask, choose)
            began = time.monotonic()
            accepted = matcher.accept_token(token_id, False)
            took_s += time.monotonic() - began
            assert accepted, "xgrammar refuses a token that its own mask allows"
            slow = slow + 1 if took_s > MAX_STEP_S else 0
            if slow == _SLOW_STEPS:
                raise GuideProblem("is too ambiguous: one text can be read in so many ways that it is slow to follow")

    def _may_go_on(self) -> bool:
        """Whether a token may follow that is no end; leaves those in the mask."""
        _clear(self._mask, self._behind)
        if not any(self._mask):
            raise GuideProblem("leads to a place where no token of the model can follow")
        _clear(self._mask, self._stop_token_ids)
        return any(self._mask)


def _clear(mask: bytearray, token_ids: Iterable[int]) -> None:
    for token_id in token_ids:
        mask[token_id // 8] &= ~(1 << token_id % 8)


_SOME_BIT = re.compile(rb"[^\0]")


def _some_token(mask: bytearray, choose: random.Random) -> int:
    """One of the ids whose bits are set, of which there are some."""
    found = _SOME_BIT.search(mask, choose.randrange(len(mask))) or _SOME_BIT.search(mask)
    assert found is not None
    return 8 * found.start() + choose.choice([bit for bit in range(8) if mask[found.start()] >> bit & 1])
