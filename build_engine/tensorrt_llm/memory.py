"""What fits on which GPU: arithmetic over the sizes of a Mixtral.

Weights, KV cache and runtime share a GPU's memory.
"""

from build_engine.mixtral import MixtralConfig

from .speed import attention_parameters, expert_parameters, quantized_bytes

GIB = 2**30
RUNTIME_BYTES = 3 * GIB
"""CUDA context, activations and the MoE workspace at max_num_tokens 8192, beside the weights."""
_HOST_TEMPORARIES = 4 * GIB
"""Host memory of NVIDIA's programs beside the weights. An estimate; the manifest of an engine has what was used."""
KV_CACHE_FRACTION = 0.9
"""Share of the remaining memory that the KV cache gets."""
TOKENS_PER_BLOCK = 32
"""Tokens in a block of the KV cache: the default of trtllm-build, which the build does not change."""


def weight_bytes(config: MixtralConfig, tp_size: int) -> int:
    """Bytes of weights in the engine of one rank: the embedding, the router and the norms are on each."""
    layers, experts = config.num_hidden_layers, config.num_local_experts
    shared = 2 * config.vocab_size * config.hidden_size
    shared += layers * experts * config.hidden_size * 4
    shared += 2 * (2 * layers + 1) * config.hidden_size
    head = 2 * config.vocab_size * config.hidden_size
    quantized = layers * (attention_parameters(config) + experts * expert_parameters(config))
    return shared + (head + quantized_bytes(config, quantized)) // tp_size


def kv_tokens(config: MixtralConfig, memory_gib: float, tp_size: int) -> int:
    """Tokens of float16 KV cache that fit beside weights and runtime, in whole blocks."""
    free = memory_gib * GIB - weight_bytes(config, tp_size) - RUNTIME_BYTES
    tokens = int(max(free, 0) * KV_CACHE_FRACTION / (config.kv_bytes_per_token / tp_size))
    return tokens // TOKENS_PER_BLOCK * TOKENS_PER_BLOCK


def longest_sequence(config: MixtralConfig, kv_tokens: int, requests: int) -> int:
    """Prompt plus answer, in tokens, that each of `requests` concurrent requests can have without a pause."""
    return min(config.context_length, kv_tokens // requests // TOKENS_PER_BLOCK * TOKENS_PER_BLOCK)


def convert_host_bytes(config: MixtralConfig, tp_size: int) -> int:
    """Memory that the converter needs at least: the source, one converted rank, and temporaries of one matrix."""
    return weight_bytes(config, 1) + weight_bytes(config, tp_size) + _HOST_TEMPORARIES


def build_host_bytes(config: MixtralConfig, tp_size: int) -> int:
    """Memory that the builder needs at least, which builds all ranks at once.

    Each rank's weights three times, as they were read, as TensorRT copies them, and in the serialised engine; and
    temporaries.
    """
    return 3 * tp_size * weight_bytes(config, tp_size) + _HOST_TEMPORARIES
