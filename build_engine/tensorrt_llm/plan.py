"""What fits on which GPU, and how fast it can be at best: arithmetic over the sizes of a Mixtral.

Weights, KV cache and runtime share a GPU's memory. Each step reads every weight that its tokens use, so memory
bandwidth bounds the tokens per second.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from build_engine.mixtral import MixtralConfig, linear_sizes

from .gpus import Gpu
from .layout import split_problem

GIB = 2**30
TP_SIZES = (1, 2, 4, 8)
CONCURRENCIES = (1, 8, 32, 128)
"""Numbers of concurrent requests that the plan gives the longest sequence for."""
BATCH_SIZES = (1, 8, 32, 128)
"""Numbers of concurrent requests that the plan gives the tokens per second for."""
RUNTIME_BYTES = 3 * GIB
"""CUDA context, activations and the MoE workspace at max_num_tokens 8192, beside the weights."""
_HOST_TEMPORARIES = 4 * GIB
"""Host memory of NVIDIA's programs beside the weights. An estimate; the manifest of an engine has what was used."""
KV_CACHE_FRACTION = 0.9
"""Share of the remaining memory that the KV cache gets."""
ROOFLINE_CONTEXT = 512
"""Tokens of context per request that the bandwidth figures assume."""
TOKENS_PER_BLOCK = 32
"""Tokens in a block of the KV cache: the default of trtllm-build, which the build does not change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecommendedConfig:
    """The values that the plan recommends for config.pbtxt, by the names used there."""

    max_batch_size: int
    max_num_tokens: int
    max_seq_len: int
    tensor_parallel_size: int
    kv_cache_free_gpu_mem_fraction: float = KV_CACHE_FRACTION


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One model on `tp_size` equal GPUs; bytes are per GPU. `recommended` is None if it does not fit."""

    tp_size: int
    weight_bytes: int
    kv_bytes_per_token: int
    kv_tokens: int
    longest_sequences: dict[int, int]
    tokens_per_s: dict[int, float]
    recommended: RecommendedConfig | None


def make_plan(config: MixtralConfig, gpu: Gpu, tp_size: int) -> Plan | str:
    """The plan, or why the model cannot be split among `tp_size` GPUs."""
    if problem := split_problem(config, tp_size):
        return problem
    tokens = kv_tokens(config, gpu.memory_gib, tp_size)
    return Plan(
        tp_size=tp_size,
        weight_bytes=weight_bytes(config, tp_size),
        kv_bytes_per_token=config.kv_bytes_per_token // tp_size,
        kv_tokens=tokens,
        longest_sequences={requests: longest_sequence(config, tokens, requests) for requests in CONCURRENCIES},
        tokens_per_s={batch: roofline(config, gpu, tp_size, batch) for batch in BATCH_SIZES},
        recommended=_recommended_config(config, gpu, tp_size, tokens),
    )


def weight_bytes(config: MixtralConfig, tp_size: int) -> int:
    """Bytes of weights in the engine of one rank: the embedding, the router and the norms are on each."""
    layers, experts = config.num_hidden_layers, config.num_local_experts
    shared = 2 * config.vocab_size * config.hidden_size
    shared += layers * experts * config.hidden_size * 4
    shared += 2 * (2 * layers + 1) * config.hidden_size
    head = 2 * config.vocab_size * config.hidden_size
    quantized = layers * (_attention(config) + experts * _expert(config))
    return shared + (head + _quantized_bytes(config, quantized)) // tp_size


def kv_tokens(config: MixtralConfig, memory_gib: float, tp_size: int) -> int:
    """Tokens of float16 KV cache that fit beside weights and runtime, in whole blocks."""
    free = memory_gib * GIB - weight_bytes(config, tp_size) - RUNTIME_BYTES
    tokens = int(max(free, 0) * KV_CACHE_FRACTION / (config.kv_bytes_per_token / tp_size))
    return tokens // TOKENS_PER_BLOCK * TOKENS_PER_BLOCK


def longest_sequence(config: MixtralConfig, kv_tokens: int, requests: int) -> int:
    """Prompt plus answer, in tokens, that each of `requests` concurrent requests can have without a pause."""
    return min(config.context_length, kv_tokens // requests // TOKENS_PER_BLOCK * TOKENS_PER_BLOCK)


def roofline(config: MixtralConfig, gpu: Gpu, tp_size: int, batch_size: int) -> float:
    """Tokens per second of all requests together that bandwidth and arithmetic allow, without communication."""
    by_memory = step_bytes(config, tp_size, batch_size) / (gpu.bandwidth_tb_s * 1e12)
    by_arithmetic = batch_size * _flop_per_token(config) / tp_size / (gpu.float16_tflops * 1e12)
    return batch_size / max(by_memory, by_arithmetic)


def step_bytes(config: MixtralConfig, tp_size: int, batch_size: int) -> float:
    """Bytes that one GPU reads for one token of each request, `ROOFLINE_CONTEXT` tokens into it."""
    hit = _experts_hit(config, batch_size)
    quantized = config.num_hidden_layers * (_attention(config) + hit * _expert(config))
    head = 2 * config.vocab_size * config.hidden_size
    context = batch_size * ROOFLINE_CONTEXT * config.kv_bytes_per_token
    split = (_quantized_bytes(config, quantized) + head + context) / tp_size
    routers = 4 * config.num_hidden_layers * config.num_local_experts * config.hidden_size
    return split + routers + 2 * batch_size * config.hidden_size


def convert_host_bytes(config: MixtralConfig, tp_size: int) -> int:
    """Memory that the converter needs at least: the source, one converted rank, and temporaries of one matrix."""
    return weight_bytes(config, 1) + weight_bytes(config, tp_size) + _HOST_TEMPORARIES


def build_host_bytes(config: MixtralConfig, tp_size: int) -> int:
    """Memory that the builder needs at least, which builds all ranks at once.

    Each rank's weights three times, as they were read, as TensorRT copies them, and in the serialised engine; and
    temporaries.
    """
    return 3 * tp_size * weight_bytes(config, tp_size) + _HOST_TEMPORARIES


def _experts_hit(config: MixtralConfig, batch_size: int) -> float:
    """Expected number of different experts per layer, if tokens choose independently and uniformly."""
    missed = (1 - config.num_experts_per_tok / config.num_local_experts) ** batch_size
    return config.num_local_experts * (1 - missed)


def _flop_per_token(config: MixtralConfig) -> float:
    active = _attention(config) + config.num_experts_per_tok * _expert(config)
    active += config.num_local_experts * config.hidden_size
    return 2.0 * (config.num_hidden_layers * active + config.vocab_size * config.hidden_size)


def _quantized_bytes(config: MixtralConfig, parameters: float) -> int:
    """4 bits each; per group a float16 scale and TensorRT-LLM's float16 zero."""
    return int(parameters * (0.5 + 2 * 2 / config.group_size))


def _attention(config: MixtralConfig) -> int:
    return sum(_products(config, ("q_proj", "k_proj", "v_proj", "o_proj")))


def _expert(config: MixtralConfig) -> int:
    return sum(_products(config, ("w1", "w2", "w3")))


def _products(config: MixtralConfig, kinds: tuple[str, ...]) -> Iterator[int]:
    sizes = linear_sizes(config)
    return (sizes[kind][0] * sizes[kind][1] for kind in kinds)


def _recommended_config(config: MixtralConfig, gpu: Gpu, tp_size: int, kv_tokens: int) -> RecommendedConfig | None:
    """Batch and step sizes by memory: activations grow with max_num_tokens, the batch's state with max_batch_size."""
    if kv_tokens == 0:
        return None
    if gpu.memory_gib >= 70:
        max_batch_size, max_num_tokens = 256, 8192
    elif gpu.memory_gib >= 40:
        max_batch_size, max_num_tokens = (64 if tp_size == 1 else 128), 4096
    else:
        max_batch_size, max_num_tokens = 32, 2048
    return RecommendedConfig(
        max_batch_size=max_batch_size,
        max_num_tokens=max_num_tokens,
        max_seq_len=longest_sequence(config, kv_tokens, 1),
        tensor_parallel_size=tp_size,
    )
