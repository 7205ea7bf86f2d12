"""A short answer by a compiled grammar, to see that following it costs the engine nothing that it cannot afford.

A grammar that is ambiguous enough, such as `("a"*)*`, compiles in no time and then takes seconds for each token, in the
step that all requests of the batch share.
"""

import random
import re
import time

from .problems import GuideProblem
from .xgrammar_core import CompiledGrammar, Core

NUM_TOKENS = 150
MAX_STEP_S = 0.05
"""Time for one token, on a machine that may be busy: what takes it three times running is refused."""
_SLOW_STEPS = 3


def try_grammar(core: Core, compiled: CompiledGrammar, vocab_size: int, stop_token_ids: frozenset[int]) -> None:
    """Follow `compiled` for some tokens. Raises GuideProblem if it is slow, or leads where no token is allowed."""
    matcher = core.GrammarMatcher(compiled, None, False, -1)
    choose = random.Random(0)
    words = -(-vocab_size // 32)
    mask = bytearray(4 * words)
    slow = 0
    for _ in range(NUM_TOKENS):
        began = time.monotonic()
        matcher.fill_next_token_bitmask(memoryview(mask).cast("i", (1, words)), 0, False)
        took_s = time.monotonic() - began
        if not any(mask):
            raise GuideProblem("leads to a place where no token of the model can follow")
        for token_id in stop_token_ids:
            mask[token_id // 8] &= ~(1 << token_id % 8)
        if not any(mask):
            return
        began = time.monotonic()
        matcher.accept_token(_some_token(mask, choose), False)
        took_s += time.monotonic() - began
        slow = slow + 1 if took_s > MAX_STEP_S else 0
        if slow == _SLOW_STEPS:
            raise GuideProblem(
                "is too ambiguous: there are too many ways to read one text, so following it is too slow"
            )


_SOME_BIT = re.compile(rb"[^\0]")


def _some_token(mask: bytearray, choose: random.Random) -> int:
    """One of the ids whose bits are set, of which there are some."""
    found = _SOME_BIT.search(mask, choose.randrange(len(mask))) or _SOME_BIT.search(mask)
    assert found is not None
    return 8 * found.start() + choose.choice([bit for bit in range(8) if mask[found.start()] >> bit & 1])
