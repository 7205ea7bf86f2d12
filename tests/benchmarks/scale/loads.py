"""Three kinds of load: how long their prompts and answers are, and what their users accept."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Kind:
    """Requests of one kind: mean lengths in tokens, and their share of a load. `spread` is of the logarithm."""

    share: float
    prompt_tokens: int
    answer_tokens: int
    spread: float = 0.6


@dataclass(frozen=True)
class Promise:
    """What 99 of 100 requests get: seconds to the first token, and seconds per token after it."""

    first_token_s: float
    per_token_s: float


@dataclass(frozen=True)
class Load:
    """`limits` is the profile of `make limits` that the engine is built for. Without a promise only the amount counts.

    `max_tokens` is what each request reserves in the KV cache beside its prompt; None: as many as its answer has.
    """

    name: str
    kinds: Sequence[Kind]
    promise: Promise | None
    limits: str
    max_tokens: int | None


@dataclass(frozen=True, slots=True)
class Request:
    """Seconds and tokens. `reserved` are the tokens that it holds of the KV cache while it runs."""

    arrived_at: float
    prompt_tokens: int
    answer_tokens: int
    reserved: int


_CHAT = Kind(share=0.75, prompt_tokens=500, answer_tokens=250)
_DOCUMENT = Kind(share=0.25, prompt_tokens=2000, answer_tokens=300)
_DEFAULT_MAX_TOKENS = 2048
"""default_max_tokens of model_repository/tensorrt_llm/config.pbtxt: chats do not set max_tokens."""

LOADS = (
    # MLPerf's limits for llama2-70b-interactive, loadgen/mlperf.conf.
    Load("interactive", [_CHAT], Promise(0.45, 0.04), "interactive", _DEFAULT_MAX_TOKENS),
    # MLPerf's limits for mixtral-8x7b as a server, in the same file.
    Load("mixed", [_CHAT, _DOCUMENT], Promise(2.0, 0.2), "interactive", _DEFAULT_MAX_TOKENS),
    Load("batch", [Kind(1.0, 1000, 500)], None, "throughput", None),
)


def draw(load: Load, count: int, rate: float, max_seq_len: int, seed: int = 0) -> list[Request]:
    """`count` requests that arrive at random, `rate` a second on average; all at once if it is infinite.

    The same seed draws the same requests for every rate, so that a higher rate is the same load, sooner.
    """
    random = np.random.default_rng(seed)
    arrivals = np.cumsum(random.exponential(1.0, count)) / rate if math.isfinite(rate) else np.zeros(count)
    shares = np.array([kind.share for kind in load.kinds])
    chosen = random.choice(len(shares), count, p=shares / shares.sum())
    noise = random.standard_normal((count, 2))
    requests = []
    for arrived_at, kind, (of_prompt, of_answer) in zip(arrivals, chosen, noise, strict=True):
        prompt = _length(load.kinds[kind].prompt_tokens, load.kinds[kind].spread, of_prompt)
        answer = _length(load.kinds[kind].answer_tokens, load.kinds[kind].spread, of_answer)
        longest = load.max_tokens or answer
        prompt = min(prompt, max_seq_len - longest)
        requests.append(Request(float(arrived_at), prompt, min(answer, longest), prompt + longest))
    return requests


def mean_tokens(load: Load) -> tuple[float, float]:
    """Of the prompts and of the answers of one request."""
    whole = sum(kind.share for kind in load.kinds)
    prompts = sum(kind.share * kind.prompt_tokens for kind in load.kinds) / whole
    return prompts, sum(kind.share * kind.answer_tokens for kind in load.kinds) / whole


def _length(mean: float, spread: float, noise: float) -> int:
    """Log-normal, with the mean `mean`."""
    return max(1, round(mean * math.exp(spread * noise - spread**2 / 2)))
