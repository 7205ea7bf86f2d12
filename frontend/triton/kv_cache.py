"""How full the engine's KV cache is, read from Triton's metrics.

A failure is logged and not raised: the frontend's other metrics are useful without it.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from frontend.generation import Engine

_log = logging.getLogger(__name__)

_TIMEOUT_S = 2.0
_FAMILY, _KIND = "nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type"
"""The metric and its label, as TensorRT-LLM's backend names them. The CPU engine reports under the same names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KvCache:
    """Size in blocks and tokens per block; `usage` is the share of the blocks in use, 0 to 1."""

    num_blocks: int
    tokens_per_block: int
    usage: float

    @property
    def num_tokens(self) -> int:
        """What a request can hold if it has the cache for itself; 0 if the engine does not say yet."""
        return self.num_blocks * self.tokens_per_block


def fit_context(engine: Engine, kv_cache: KvCache) -> Engine:
    """The engine, with a context that fits its KV cache.

    A longer request could never be completed: both engines refuse its prompt, or cut its answer without a word.
    """
    if not 0 < kv_cache.num_tokens < engine.max_seq_len:
        return engine
    _log.warning(
        "max_seq_len is %d, and the engine's KV cache holds %d tokens: the context is %d tokens",
        engine.max_seq_len, kv_cache.num_tokens, kv_cache.num_tokens,
    )  # fmt: skip
    return replace(engine, max_seq_len=kv_cache.num_tokens)


async def fetch_kv_cache(metrics_url: str, model: str) -> KvCache | None:
    """None if Triton's metrics cannot be read or do not contain it."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_TIMEOUT_S)) as session,
            session.get(metrics_url, raise_for_status=True) as response,
        ):
            return read_kv_cache(await response.text(), model)
    except (TimeoutError, aiohttp.ClientError, ValueError) as exc:
        _log.warning("Triton's metrics at %s cannot be read: %r", metrics_url, exc)
        return None


def read_kv_cache(triton_metrics: str, model: str) -> KvCache | None:
    """From the text of Triton's metrics; None if a gauge is missing. Raises ValueError if the text cannot be parsed."""
    blocks = _blocks(triton_metrics, model)
    if not blocks.keys() >= {"max", "used", "tokens_per"}:
        return None
    num_blocks = int(blocks["max"])
    return KvCache(
        num_blocks=num_blocks,
        tokens_per_block=int(blocks["tokens_per"]),
        usage=blocks["used"] / num_blocks if num_blocks else 0.0,
    )


def _blocks(triton_metrics: str, model: str) -> Mapping[str, float]:
    """Only these lines are parsed: Triton has a hundred others, and each would take some 30 us."""
    lines = [line for line in triton_metrics.splitlines() if line.startswith(_FAMILY)]
    return {
        sample.labels.get(_KIND, ""): sample.value
        for family in text_string_to_metric_families("\n".join(lines))
        for sample in family.samples
        if sample.name == _FAMILY and sample.labels.get("model") == model
    }
