"""Which limits follow from a GPU, for two kinds of use. Pure.

The KV cache bounds the batch: the engine reserves prompt and answer of a request when it starts, and a request that
does not fit waits inside the engine, behind the frontend's fair queue. The time of a step bounds its tokens: while the
engine works on a piece of a prompt, the running answers wait.
"""

from dataclasses import dataclass

from build_engine.mixtral import MixtralConfig
from build_engine.model_config import Limits

from .gpus import Gpu
from .memory import TOKENS_PER_BLOCK, kv_tokens, longest_sequence
from .speed import Speed, full_step_s, speed

PROMPT_TOKENS = 500
_MOST_REQUESTS = 512
"""The best of 64, 512 and 2,048 for a 70B on four H100s, in NVIDIA's guide to max_batch_size (TensorRT-LLM 1.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A kind of use: what its requests reserve beside `PROMPT_TOKENS`, and how long a step may take, in seconds."""

    name: str
    max_tokens: int
    longest_step_s: float


_ALL = (
    # Chats without max_tokens, which get the default_max_tokens of config.pbtxt. 200 ms between two tokens is MLPerf's
    # limit for a server of Mixtral-8x7B.
    Profile(name="interactive", max_tokens=2048, longest_step_s=0.2),
    # Jobs that set max_tokens to 1,000 or less. 2 s is MLPerf's limit for the first token, and here for a pause.
    Profile(name="throughput", max_tokens=1000, longest_step_s=2.0),
)
PROFILES = {profile.name: profile for profile in _ALL}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileLimits:
    """The limits of a profile on `tp_size` GPUs, and what follows from them.

    `reserved_tokens` is what each request takes of the KV cache; `kv_cache_requests` of them fill it. `step_s` is the
    expected time of a step of max_num_tokens with a full batch, in seconds; `speed` is that of a full batch.
    """

    limits: Limits
    reserved_tokens: int
    kv_cache_requests: int
    step_s: float
    speed: Speed


def profile_limits(profile: Profile, config: MixtralConfig, gpu: Gpu, tp_size: int) -> ProfileLimits | None:
    """None if no memory is left for a KV cache."""
    tokens = kv_tokens(config, gpu.memory_gib, tp_size)
    if tokens == 0:
        return None
    max_seq_len = longest_sequence(config, tokens, 1)
    reserved = min(PROMPT_TOKENS + profile.max_tokens, max_seq_len)

    def step_s(batch_size: int, num_tokens: int) -> float:
        return full_step_s(config, gpu, tp_size, batch_size=batch_size, num_tokens=num_tokens, context=reserved)

    batch = _power_of_two(min(tokens // reserved, _MOST_REQUESTS))
    while batch > 1 and step_s(batch, max(batch, TOKENS_PER_BLOCK)) > profile.longest_step_s:
        batch //= 2
    step = _power_of_two(min(_most_step_tokens(gpu), batch * max_seq_len))
    while step > max(batch, TOKENS_PER_BLOCK) and step_s(batch, step) > profile.longest_step_s:
        step //= 2
    return ProfileLimits(
        limits=Limits(max_batch_size=batch, max_seq_len=max_seq_len, max_num_tokens=step),
        reserved_tokens=reserved,
        kv_cache_requests=tokens // reserved,
        step_s=step_s(batch, step),
        speed=speed(config, gpu, tp_size, batch),
    )


def _most_step_tokens(gpu: Gpu) -> int:
    """By memory: activations grow with max_num_tokens, and so do workspaces of kernels that the builder tries."""
    if gpu.memory_gib >= 70:
        return 8192
    return 4096 if gpu.memory_gib >= 40 else 2048


def _power_of_two(number: int) -> int:
    """The largest that is not above `number`."""
    return 1 << (number.bit_length() - 1)
