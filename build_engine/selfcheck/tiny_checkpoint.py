"""A random AutoAWQ Mixtral of a few megabytes, with a tokenizer of its own, that TensorRT-LLM's kernels accept.

What the sizes have to be, from the sources of TensorRT-LLM 1.2: groups of 64 or 128, and K a multiple of 64
(`generic_mixed_gemm_kernelLauncher` in fpA_intB_gemm_template.h); N a multiple of 16, four columns of a tile times four
of a thread block (weightOnlyBatchedGemv/kernelDispatcher.h), here of 64; hidden and intermediate size multiples of 32
(moe_kernels.cu); both multiples of the group times the number of GPUs, so that nothing is padded (`split_problem` in
layout.py). Heads of 128, as a Mixtral-8x7B has.
"""

import json
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from build_engine.awq import pack_int4
from build_engine.checkpoint import CONFIG, SINGLE_SHARD, TOKENIZER, Checkpoint, open_checkpoint
from build_engine.mixtral import linear_sizes, quantized_linears, to_mixtral_config

VOCAB_SIZE = 2048
"""Three special tokens, every byte, pairs of letters, and pairs of those: as in a Mixtral-8x7B, all ids have tokens."""
_SEED = 0
_BOS, _EOS, _UNK = "<s>", "</s>", "<unk>"
_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)
_CONFIG: dict[str, Any] = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 512,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
    "hidden_act": "silu",
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"},
}


def make_tiny_checkpoint(directory: Path, positions: int) -> Checkpoint:
    """Write the checkpoint, always the same for as many `positions`, and open it. Raises CheckpointError."""
    directory.mkdir(parents=True, exist_ok=True)
    fields = {**_CONFIG, "max_position_embeddings": positions}
    (directory / CONFIG).write_text(json.dumps(fields, indent=2) + "\n")
    save_file(dict(_tensors(fields)), directory / SINGLE_SHARD, metadata={"format": "pt"})
    tokenizer().save(str(directory / TOKENIZER))
    names = {"bos_token": _BOS, "eos_token": _EOS, "unk_token": _UNK, "chat_template": _TEMPLATE}
    (directory / "tokenizer_config.json").write_text(json.dumps(names, indent=2) + "\n")
    return open_checkpoint(directory)


def tokenizer() -> Tokenizer:
    """A byte-level BPE: any text has tokens, and any tokens but the special ones have a text."""
    single = [_UNK, _BOS, _EOS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    pairs = [(first, second) for first in ascii_lowercase for second in ascii_lowercase]
    fours = ((first + second, third + fourth) for (first, second), (third, fourth) in product(pairs, repeat=2))
    merges = [*pairs, *islice(fours, VOCAB_SIZE - len(single) - len(pairs))]
    vocabulary = {token: token_id for token_id, token in enumerate([*single, *map("".join, merges)])}
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token=_UNK))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in (_UNK, _BOS, _EOS)])
    return made


def _tensors(fields: dict[str, Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Random weights whose activations stay near one from layer to layer; every expert is different."""
    rng = np.random.default_rng(_SEED)
    config = to_mixtral_config(fields)
    hidden, experts = config.hidden_size, config.num_local_experts

    def plain(*shape: int, around: float = 0.0, spread: float = 1.0) -> NDArray[np.float16]:
        return (around + spread * rng.standard_normal(shape)).astype(np.float16)

    yield "model.embed_tokens.weight", plain(config.vocab_size, hidden)
    yield "lm_head.weight", plain(config.vocab_size, hidden, spread=3 / np.sqrt(hidden))
    yield "model.norm.weight", plain(hidden, around=1.0, spread=0.1)
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{prefix}.{norm}.weight", plain(hidden, around=1.0, spread=0.1)
        yield f"{prefix}.block_sparse_moe.gate.weight", plain(experts, hidden, spread=0.3)
        for name, kind in quantized_linears(config, layer):
            yield from _linear(rng, name, *linear_sizes(config)[kind], config.group_size)


def _linear(
    rng: np.random.Generator, name: str, inputs: int, outputs: int, group_size: int
) -> Iterator[tuple[str, NDArray[Any]]]:
    groups = inputs // group_size
    yield f"{name}.qweight", pack_int4(rng.integers(0, 16, (inputs, outputs), dtype=np.uint8))
    yield f"{name}.qzeros", pack_int4(rng.integers(5, 11, (groups, outputs), dtype=np.uint8))
    # Values of q - z have a spread of about 5.
    scales = rng.uniform(0.5, 1.5, (groups, outputs)) / (5 * np.sqrt(inputs))
    yield f"{name}.scales", scales.astype(np.float16)
