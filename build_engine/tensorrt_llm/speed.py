"""How fast a Mixtral can be on a GPU, by arithmetic: a step reads weights and context, and multiplies.

It takes as long as the slower of the two. Communication between GPUs is not counted. Standard library only: `make perf`
prints these figures on a host without this project's environment.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from build_engine.mixtral import MixtralConfig, linear_sizes

from .gpus import Gpu

CONTEXT = 512
"""Tokens of context of each request that the figures assume, unless they name another number."""


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Shares of a GPU's bandwidth and of its arithmetic that are reached."""

    bandwidth: float
    arithmetic: float


AT_MOST = Efficiency(1, 1)
EXPECTED = Efficiency(0.51, 0.45)
"""What TensorRT-LLM reached with other Mixtral-8x7B engines on A100s; for 4-bit weights nothing is published.

Bandwidth: 81 tokens/s of one stream with 8-bit weights, of 160 (Baseten, December 2023). Arithmetic: 5,541 answers'
tokens/s with as many of prompts, in float16 on two, 283 of 624 TFLOPS (perf-overview.md of TensorRT-LLM 0.17).
"""


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens per second of all requests together: what the hardware allows, and what is expected."""

    at_most: float
    expected: float


def speed(
    config: MixtralConfig,
    gpu: Gpu,
    tp_size: int,
    batch_size: int,
    *,
    context: int = CONTEXT,
    prompt_tokens: float = 0,
) -> Speed:
    """The speed of `batch_size` requests that generate at the same time, `context` tokens long on average.

    For each generated token, `prompt_tokens` are worked out too: all prompts' tokens by all answers'.
    """
    num_bytes = step_bytes(config, tp_size, batch_size, batch_size, context)
    tokens = batch_size * (1 + prompt_tokens)
    at_most, expected = (_step_s(config, gpu, tp_size, num_bytes, tokens, reached) for reached in (AT_MOST, EXPECTED))
    return Speed(batch_size / at_most, batch_size / expected)


def full_step_s(
    config: MixtralConfig, gpu: Gpu, tp_size: int, *, batch_size: int, num_tokens: int, context: int
) -> float:
    """Expected seconds of a step of `num_tokens`, for requests with `context` tokens each: the rest are of prompts."""
    num_bytes = step_bytes(config, tp_size, batch_size, num_tokens, context)
    return _step_s(config, gpu, tp_size, num_bytes, num_tokens, EXPECTED)


def step_bytes(config: MixtralConfig, tp_size: int, batch_size: int, num_tokens: int, context: int = CONTEXT) -> float:
    """Bytes that one GPU reads for a step of `num_tokens`, with `context` tokens in the cache for each request."""
    hit = _experts_hit(config, num_tokens)
    quantized = config.num_hidden_layers * (attention_parameters(config) + hit * expert_parameters(config))
    head = 2 * config.vocab_size * config.hidden_size
    cached = batch_size * context * config.kv_bytes_per_token
    split = (quantized_bytes(config, quantized) + head + cached) / tp_size
    routers = 4 * config.num_hidden_layers * config.num_local_experts * config.hidden_size
    return split + routers + 2 * num_tokens * config.hidden_size


def attention_parameters(config: MixtralConfig) -> int:
    """Quantised parameters of one layer's attention."""
    return sum(_products(config, ("q_proj", "k_proj", "v_proj", "o_proj")))


def expert_parameters(config: MixtralConfig) -> int:
    """Quantised parameters of one expert in one layer."""
    return sum(_products(config, ("w1", "w2", "w3")))


def quantized_bytes(config: MixtralConfig, parameters: float) -> int:
    """4 bits each; per group a float16 scale and TensorRT-LLM's float16 zero."""
    return int(parameters * (0.5 + 2 * 2 / config.group_size))


def _step_s(
    config: MixtralConfig, gpu: Gpu, tp_size: int, num_bytes: float, num_tokens: float, reached: Efficiency
) -> float:
    reading = num_bytes / (gpu.bandwidth_tb_s * 1e12 * reached.bandwidth)
    multiplying = num_tokens * _flop_per_token(config) / tp_size / (gpu.float16_tflops * 1e12 * reached.arithmetic)
    return max(reading, multiplying)


def _experts_hit(config: MixtralConfig, num_tokens: int) -> float:
    """Expected number of different experts per layer, if tokens choose independently and uniformly."""
    missed = (1 - config.num_experts_per_tok / config.num_local_experts) ** num_tokens
    return config.num_local_experts * (1 - missed)


def _flop_per_token(config: MixtralConfig) -> float:
    active = attention_parameters(config) + config.num_experts_per_tok * expert_parameters(config)
    active += config.num_local_experts * config.hidden_size
    return 2.0 * (config.num_hidden_layers * active + config.vocab_size * config.hidden_size)


def _products(config: MixtralConfig, kinds: tuple[str, ...]) -> Iterator[int]:
    sizes = linear_sizes(config)
    return (sizes[kind][0] * sizes[kind][1] for kind in kinds)
