"""The JSON files that describe the checkpoint to its loaders, as text."""

import json

from .mixtral import EXPERTS_PER_TOKEN
from .source import Source
from .tokenizer import tokenizer_files
from .upcycle import GROUP_SIZE, NUM_EXPERTS

SAMPLING = {"do_sample": True, "temperature": 0.2, "top_p": 0.9, "repetition_penalty": 1.1}
"""For requests that do not say. Temperature and top_p are those of SmolLM2's model card; the penalty is against loops:
docs/demo.md has the figures."""


def text_files(source: Source) -> dict[str, str]:
    """File name -> text of everything beside the weights."""
    ids = {
        "bos_token_id": source.vocabulary.bos_token_id,
        "eos_token_id": source.vocabulary.eos_token_id,
        "pad_token_id": source.vocabulary.pad_token_id,
    }
    return {
        "config.json": _json(model_config(source) | ids),
        "generation_config.json": _json(ids | SAMPLING),
        **tokenizer_files(source.vocabulary, source.max_position_embeddings),
    }


def model_config(source: Source) -> dict[str, object]:
    """`config.json` without token ids, as transformers' MixtralConfig and TensorRT-LLM's converter read it."""
    config = source.decoder.config
    return {
        "architectures": ["MixtralForCausalLM"],
        "attention_dropout": 0.0,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": source.max_position_embeddings,
        "model_type": "mixtral",
        "num_attention_heads": config.num_heads,
        "num_experts_per_tok": EXPERTS_PER_TOKEN,
        "num_hidden_layers": config.num_layers,
        "num_key_value_heads": config.num_kv_heads,
        "num_local_experts": NUM_EXPERTS,
        "output_router_logits": False,
        "quantization_config": {
            "bits": 4,
            "group_size": GROUP_SIZE,
            "modules_to_not_convert": ["gate"],
            "quant_method": "awq",
            "version": "gemm",
            "zero_point": True,
        },
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "router_aux_loss_coef": 0.02,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "use_cache": True,
        "vocab_size": len(source.vocabulary.tokens),
    }


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"
