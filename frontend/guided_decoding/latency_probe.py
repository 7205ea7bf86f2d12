"""A short answer by a compiled grammar, to see that following it costs the engine nothing that it cannot afford.

A grammar that is ambiguous enough, such as `("a"*)*`, compiles in no time and then takes seconds for each token, in the
step that all requests of the batch share.
"""

import random
import re
import time
from collections.abc import Iterable

from .errors import InvalidConstraint
from .xgrammar import CompiledGrammar, Core

NUM_ANSWERS = 5
NUM_TOKENS = 400
TRIAL_S = 2.0
"""Processor time for all of it, which a busy machine does not stretch; what was not slow by then is let pass."""
MAX_STEP_S = 0.3
"""For one token: what takes it three times running is refused."""
_SLOW_STEPS = 3
_GROWTH = 8
"""A token that repeats itself and takes so much longer after a while will take ever longer."""
_RUN = 24
_NOTICEABLE_S = 0.01
_STAY = 0.98
"""How often a token follows itself if it may: repetition is what ambiguous grammars are slow at."""


def probe_latency(core: Core, compiled: CompiledGrammar, vocab_size: int, stop_token_ids: frozenset[int]) -> None:
    """Follow `compiled` for some tokens. Raises InvalidConstraint if it is slow, or leads where no token is allowed."""
    answer = _Answer(core, compiled, vocab_size, stop_token_ids)
    give_up = time.thread_time() + TRIAL_S
    for seed in range(NUM_ANSWERS):
        answer.follow(random.Random(seed), give_up)


class _Answer:
    """Answers by one grammar."""

    def __init__(self, core: Core, compiled: CompiledGrammar, vocab_size: int, stop_token_ids: frozenset[int]) -> None:
        self._core, self._compiled = core, compiled
        self._mask = bytearray(4 * -(-vocab_size // 32))
        self._behind = range(vocab_size, 8 * len(self._mask))  # where all bits are set
        self._stop_token_ids = stop_token_ids

    def follow(self, choose: random.Random, give_up: float) -> None:
        """Up to where only an end may follow."""
        matcher = self._core.GrammarMatcher(self._compiled, None, False, -1)
        bits = memoryview(self._mask).cast("i", (1, len(self._mask) // 4))
        token_id, run = -1, list[float]()
        for _ in range(NUM_TOKENS):
            began = time.thread_time()
            matcher.fill_next_token_bitmask(bits, 0, False)
            took_s = time.thread_time() - began
            if not self._may_go_on() or began > give_up:
                return
            if token_id < 0 or not self._mask[token_id // 8] >> token_id % 8 & 1 or choose.random() > _STAY:
                other = _some_token(self._mask, choose)
                token_id, run = other, run if other == token_id else []
            began = time.thread_time()
            accepted = matcher.accept_token(token_id, False)
            assert accepted, "xgrammar refuses a token that its own mask allows"
            run.append(took_s + time.thread_time() - began)
            if _is_slow(run):
                raise InvalidConstraint(
                    "is too ambiguous: one text can be read in so many ways that it is slow to follow"
                )

    def _may_go_on(self) -> bool:
        """Whether a token may follow that is no end; leaves those in the mask."""
        _clear(self._mask, self._behind)
        if not any(self._mask):
            raise InvalidConstraint("leads to a place where no token of the model can follow")
        _clear(self._mask, self._stop_token_ids)
        return any(self._mask)


def _is_slow(run: list[float]) -> bool:
    """`run`: seconds for each of a token's repetitions."""
    late = min(run[-_SLOW_STEPS:])
    if len(run) >= _SLOW_STEPS and late > MAX_STEP_S:
        return True
    return len(run) >= _RUN and late > max(_NOTICEABLE_S, _GROWTH * max(run[1:5]))


def _clear(mask: bytearray, token_ids: Iterable[int]) -> None:
    for token_id in token_ids:
        mask[token_id // 8] &= ~(1 << token_id % 8)


_SOME_BIT = re.compile(rb"[^\0]")


def _some_token(mask: bytearray, choose: random.Random) -> int:
    """One of the ids whose bits are set, of which there are some."""
    found = _SOME_BIT.search(mask, choose.randrange(len(mask))) or _SOME_BIT.search(mask)
    assert found is not None
    return 8 * found.start() + choose.choice([bit for bit in range(8) if mask[found.start()] >> bit & 1])
