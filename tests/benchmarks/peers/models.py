"""The demo checkpoint in the formats that the peers read.

GGUF's Q4_1 stands for q * d + m with blocks of 32, so it holds AWQ's (q - z) * s as it is, but for m = -z * s in
float16. vLLM runs no AWQ Mixtral on a CPU; it gets the dequantised weights, and computes in bfloat16.
"""

import json
import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from numpy.typing import NDArray

from build_engine.awq import Uint8, unpack_int4
from build_engine.awq_linear import AwqLinear, read_linear
from build_engine.checkpoint import CONFIG, TEXT_FILES, Checkpoint
from build_engine.demo.shards import Tensor, write_shards
from build_engine.demo.source import find_source
from build_engine.mixtral import PLAIN, MixtralConfig, each_tensor, quantized_linears

_BLOCK = 32
"""Values of a block of Q4_1: float16 d and m, and 16 bytes; byte i has value i below and value i + 16 above."""
_ATTENTION = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output"}
_EXPERTS = {"w1": "ffn_gate_exps", "w2": "ffn_down_exps", "w3": "ffn_up_exps"}
_NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
_WRITTEN_BY_GGUF = ("GGUF.", "general.architecture")


def write_gguf(checkpoint: Checkpoint, file: Path) -> None:
    """Write one GGUF file. Its tokenizer, template and sizes are those of the model that the demo is made from."""
    writer = GGUFWriter(file, "llama")
    for name, field in GGUFReader(find_source()).fields.items():
        if not name.startswith(_WRITTEN_BY_GGUF):
            writer.add_key_value(name, field.contents(), field.types[0], field.types[-1])
    writer.add_expert_count(checkpoint.config.num_local_experts)
    writer.add_expert_used_count(checkpoint.config.num_experts_per_tok)
    for name, array in _plain_tensors(checkpoint):
        writer.add_tensor(name, array)
    for name, blocks in _quantized_tensors(checkpoint):
        writer.add_tensor(name, blocks, raw_dtype=GGMLQuantizationType.Q4_1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _plain_tensors(checkpoint: Checkpoint) -> Iterator[tuple[str, NDArray[Any]]]:
    def exact(name: str) -> NDArray[np.float32]:
        return checkpoint.tensor(name).astype(np.float32)

    yield "token_embd.weight", checkpoint.tensor("model.embed_tokens.weight")
    yield "output.weight", checkpoint.tensor("lm_head.weight")
    yield "output_norm.weight", exact("model.norm.weight")
    for layer in range(checkpoint.config.num_hidden_layers):
        source, target = f"model.layers.{layer}", f"blk.{layer}"
        for norm, name in _NORMS.items():
            yield f"{target}.{name}.weight", exact(f"{source}.{norm}.weight")
        yield f"{target}.ffn_gate_inp.weight", exact(f"{source}.block_sparse_moe.gate.weight")


def _quantized_tensors(checkpoint: Checkpoint) -> Iterator[tuple[str, Uint8]]:
    """Blocks, uint8 [N, bytes], or [experts, N, bytes] of all experts."""
    config = checkpoint.config
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for layer in range(config.num_hidden_layers):
        source, target = f"model.layers.{layer}", f"blk.{layer}"
        for kind, name in _ATTENTION.items():
            blocks = to_q4_1(read_linear(checkpoint, f"{source}.self_attn.{kind}"))
            yield f"{target}.{name}.weight", to_rope_pairs(blocks, heads[kind]) if kind in heads else blocks
        for kind, name in _EXPERTS.items():
            experts = (f"{source}.block_sparse_moe.experts.{each}.{kind}" for each in range(config.num_local_experts))
            yield f"{target}.{name}.weight", np.stack([to_q4_1(read_linear(checkpoint, expert)) for expert in experts])


def to_q4_1(linear: AwqLinear) -> Uint8:
    """A linear of K inputs and N outputs as blocks of Q4_1, uint8 [N, K / 32 * 20]."""
    values = unpack_int4(linear.qweight).T.reshape(linear.outputs, -1, 2, _BLOCK // 2)
    nibbles = values[:, :, 0] | (values[:, :, 1] << np.uint8(4))
    scales = linear.scales.T.astype(np.float32)
    pairs = np.stack([scales, -scales * linear.zeros().T.astype(np.float32)], axis=-1).astype(np.float16)
    by_block = np.repeat(pairs, nibbles.shape[1] // pairs.shape[1], axis=1)
    blocks: Uint8 = np.concatenate([by_block.view(np.uint8), nibbles], axis=-1)
    return blocks.reshape(linear.outputs, -1)


def to_rope_pairs(rows: Uint8, num_heads: int) -> Uint8:
    """Reorder the rows of q or k from (i, i + head_dim / 2) to GGUF's (2i, 2i + 1)."""
    halves = rows.reshape(num_heads, 2, -1, rows.shape[-1])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def write_plain_checkpoint(checkpoint: Checkpoint, directory: Path) -> None:
    """Write a Mixtral that is not quantised, in float16, as Hugging Face stores it."""
    directory.mkdir(parents=True)
    for name in TEXT_FILES:
        if (checkpoint.path / name).exists():
            shutil.copy(checkpoint.path / name, directory)
    config = json.loads((checkpoint.path / CONFIG).read_text())
    del config["quantization_config"]
    (directory / CONFIG).write_text(json.dumps(config | {"torch_dtype": "float16"}))
    write_shards(directory, chain(_unquantized(checkpoint), _dequantized(checkpoint)))


def _unquantized(checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    for name, spec in each_tensor(checkpoint.config):
        if spec.dtypes == PLAIN:
            yield name, checkpoint.tensor(name)


def _dequantized(checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    for name in _linears(checkpoint.config):
        yield f"{name}.weight", read_linear(checkpoint, name).dequantized().T.astype(np.float16)


def _linears(config: MixtralConfig) -> Iterator[str]:
    for layer in range(config.num_hidden_layers):
        yield from (name for name, _ in quantized_linears(config, layer))
