"""Which requests may start: those whose KV cache fits beside the others' until they end. Pure.

So no request is ever paused, as with TensorRT-LLM's `guaranteed_no_evict`. OpenVINO GenAI 2026.4 would start them all
and take blocks from the youngest, which goes on later with the same tokens. But it ends all of them where two prompts
wait for the rest of their blocks, or where the youngest has only blocks that it shares with others, as all of `n` have
(scheduler.hpp: `_apply_preemption` and the prompt phase).
"""

from collections.abc import Collection
from dataclasses import dataclass

KV_BLOCK_TOKENS = 32
"""Tokens in a block of the KV cache: that of OpenVINO GenAI 2026.4 on CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KvRoom:
    """The KV cache, and how many requests may share it."""

    num_blocks: int
    max_batch_size: int

    @property
    def num_tokens(self) -> int:
        """What one request alone can hold, prompt and answer together."""
        return self.num_blocks * KV_BLOCK_TOKENS

    def may_start(self, new: int, active: Collection[int]) -> bool:
        """Whether a request may start beside the active ones. All are in tokens: prompt and longest answer together.

        Blocks that several share count for each. Alone, a request of at most `num_tokens` always may.
        """
        blocks = _blocks(new) + sum(map(_blocks, active))
        return len(active) < self.max_batch_size and blocks <= self.num_blocks


def _blocks(num_tokens: int) -> int:
    return -(-num_tokens // KV_BLOCK_TOKENS)
