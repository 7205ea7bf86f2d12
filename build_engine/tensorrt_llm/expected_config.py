"""What config.json holds, of a converted Mixtral and of its engine, with exactly the options of commands.py.

Sources, TensorRT-LLM 1.2: the fields and defaults of PretrainedConfig and QuantConfig (models/modeling_utils.py),
LLaMAConfig (models/llama/config.py, which Mixtral shares), MoeConfig (layers/moe.py), Mapping (mapping.py), BuildConfig
(builder.py), PluginConfig (plugin/plugin.py) and LoraConfig (lora_helper.py); what commands/build.py and `build` in
builder.py change of them. Releases from 1.1 to 1.3rc were compared: where they differ, the field is optional.
"""

from build_engine.mixtral import MixtralConfig
from build_engine.model_config import Limits

from .config_check import Expectation, OneOf, flat
from .memory import TOKENS_PER_BLOCK

_ON = OneOf(("auto", "float16"))
"""A plugin that is on, in the model's dtype: "auto" is written as it is, or resolved."""
_DEFAULT_MAX_INPUT_LEN = 1024
"""In tokens. The builder ignores it where padding is removed, but writes it, cut to max_seq_len."""

_OPTIONAL_IN_MODEL = frozenset(
    {
        "has_partial_lora_mask",
        "rotary_embedding_dim",
        "rotary_pct",
        "runtime_defaults",
        "share_embedding_table",
        "quantization.mamba_ssm_cache_dtype",
        *(f"mapping.{name}" for name in ("moe_cluster_size", "attn_tp_size", "attn_cp_size", "cp_config")),
        *(f"mapping.{name}" for name in ("auto_parallel", "enable_attention_dp", "enable_lm_head_tp_in_adp")),
    }
)
_OPTIONAL_IN_BUILD = frozenset(
    {
        "use_mrope",
        "lora_config.max_loras",
        "lora_config.max_cpu_loras",
        "lora_config.swap_gate_up_proj_lora_b_weight",
        "plugin_config.dora_plugin",
        "plugin_config.explicitly_disable_gemm_plugin",
        "plugin_config.fuse_fp4_quant",
        "plugin_config.gemm_allreduce_plugin",
        "plugin_config.norm_quant_fusion",
    }
)
_ANY_VALUE_IN_BUILD = frozenset(
    {
        "input_timing_cache",
        "output_timing_cache",
        # Concerns dense MLPs, of which a Mixtral has none.
        "plugin_config.use_fused_mlp",
    }
)


def converted_config(config: MixtralConfig, tp_size: int) -> Expectation:
    """Of the converter's config.json."""
    return Expectation(fields=flat(_model(config, tp_size)), optional=_OPTIONAL_IN_MODEL)


def engine_config(config: MixtralConfig, limits: Limits, tp_size: int) -> Expectation:
    """Of the engine's config.json, but for its `version`, which is judged by `is_release`."""
    build = Expectation(
        fields=flat(_build(limits, tp_size)), optional=_OPTIONAL_IN_BUILD, any_value=_ANY_VALUE_IN_BUILD
    )
    version = Expectation(fields={}, optional=frozenset(), any_value=frozenset({"version"}))
    return version | converted_config(config, tp_size).under("pretrained_config") | build.under("build_config")


def _model(config: MixtralConfig, tp_size: int) -> dict[str, object]:
    return {
        "architecture": "MixtralForCausalLM",
        "dtype": "float16",
        "logits_dtype": "float32",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_size": config.head_dim,
        # "silu" would make TensorRT-LLM take half of each expert's first matrix.
        "hidden_act": "swiglu",
        "norm_epsilon": config.rms_norm_eps,
        "position_embedding_type": "rope_gpt_neox",
        "max_position_embeddings": config.max_position_embeddings,
        "rotary_base": config.rope_theta,
        "rotary_scaling": None,
        "rotary_pct": 1.0,
        "rotary_embedding_dim": config.head_dim,
        "mlp_bias": False,
        "attn_bias": False,
        "qk_layernorm": False,
        "residual_mlp": False,
        "use_parallel_embedding": False,
        "embedding_sharding_dim": 0,
        "share_embedding_table": False,
        "tie_word_embeddings": False,
        "embedding_multiplier": 1.0,
        "attention_multiplier": 1.0,
        "residual_multiplier": 1.0,
        "output_multiplier_scale": 1.0,
        "disable_weight_only_quant_plugin": False,
        "remove_duplicated_kv_heads": False,
        "has_partial_lora_mask": False,
        "fc_after_embed": False,
        "use_input_layernorm_in_first_layer": True,
        "use_last_layernorm": True,
        "layer_idx_offset": 0,
        "runtime_defaults": None,
        "moe": _experts(config),
        "quantization": _quantization(config),
        "mapping": _mapping(tp_size),
    }


def _experts(config: MixtralConfig) -> dict[str, object]:
    return {
        "num_experts": config.num_local_experts,
        "top_k": config.num_experts_per_tok,
        "normalization_mode": 1,
        "shared_expert_intermediate_size": 0,
        "sparse_mixer_epsilon": 0.01,
        "tp_mode": 0,
        "device_limited_n_group": 0,
        "device_limited_topk_group": 0,
        "device_limited_routed_scaling_factor": 1.0,
    }


def _quantization(config: MixtralConfig) -> dict[str, object]:
    """W4A16_GPTQ is how TensorRT-LLM calls 4-bit weights with zero points, AutoAWQ's too."""
    return {
        "quant_algo": "W4A16_GPTQ",
        "kv_cache_quant_algo": None,
        "group_size": config.group_size,
        "has_zero_point": True,
        "pre_quant_scale": False,
        "exclude_modules": None,
        "smoothquant_val": 0.5,
        "clamp_val": None,
        "use_meta_recipe": False,
        "mamba_ssm_cache_dtype": None,
    }


def _mapping(tp_size: int) -> dict[str, object]:
    """The converter leaves the split of attention open, which is -1; the builder fills it in."""
    return {
        "world_size": tp_size,
        "gpus_per_node": 8,
        "tp_size": tp_size,
        "pp_size": 1,
        "cp_size": 1,
        "cp_config": {},
        "moe_tp_size": tp_size,
        "moe_ep_size": 1,
        "moe_cluster_size": 1,
        "attn_tp_size": OneOf((-1, tp_size)),
        "attn_cp_size": OneOf((-1, 1)),
        "auto_parallel": False,
        "enable_attention_dp": False,
        "enable_lm_head_tp_in_adp": False,
    }


def _build(limits: Limits, tp_size: int) -> dict[str, object]:
    return {
        "max_batch_size": limits.max_batch_size,
        "max_num_tokens": limits.max_num_tokens,
        "max_seq_len": limits.max_seq_len,
        "max_input_len": min(_DEFAULT_MAX_INPUT_LEN, limits.max_seq_len),
        "max_beam_width": 1,
        "opt_batch_size": 8,
        # Not set with several profiles, which have one each.
        "opt_num_tokens": None,
        "max_prompt_embedding_table_size": 0,
        "max_encoder_input_len": 1024,
        "kv_cache_type": OneOf(("PAGED", "paged", "KVCacheType.PAGED")),
        "gather_context_logits": False,
        "gather_generation_logits": limits.gather_generation_logits,
        "strongly_typed": True,
        "force_num_profiles": None,
        "profiling_verbosity": "layer_names_only",
        "enable_debug_output": False,
        "max_draft_len": 0,
        "speculative_decoding_mode": 1,
        "use_refit": False,
        "use_strip_plan": False,
        "weight_sparsity": False,
        "weight_streaming": False,
        "monitor_memory": True,
        "use_mrope": False,
        "lora_config": _LORA,
        "plugin_config": _PLUGINS | {"nccl_plugin": _ON if tp_size > 1 else None},
    }


_LORA: dict[str, object] = {
    "lora_dir": [],
    "lora_ckpt_source": "hf",
    "max_lora_rank": 64,
    "lora_target_modules": [],
    "trtllm_modules_to_hf_modules": {},
    "max_loras": None,
    "max_cpu_loras": None,
    "swap_gate_up_proj_lora_b_weight": True,
}
"""Defaults. LoRA is off, as `lora_plugin` is."""

_PLUGINS: dict[str, object] = {
    "dtype": "float16",
    "gpt_attention_plugin": _ON,
    "moe_plugin": _ON,
    # For lm_head, which is not quantised.
    "gemm_plugin": _ON,
    "explicitly_disable_gemm_plugin": False,
    # The builder turns it on for 4-bit weights with groups.
    "weight_only_groupwise_quant_matmul_plugin": _ON,
    "weight_only_quant_matmul_plugin": None,
    # On by default, for layers that a Mixtral has not.
    "bert_attention_plugin": _ON,
    "mamba_conv1d_plugin": _ON,
    "smooth_quant_plugins": True,
    "smooth_quant_gemm_plugin": None,
    "layernorm_quantization_plugin": None,
    "rmsnorm_quantization_plugin": None,
    "quantize_per_token_plugin": False,
    "quantize_tensor_plugin": False,
    "fp8_rowwise_gemm_plugin": None,
    "qserve_gemm_plugin": None,
    "gemm_swiglu_plugin": None,
    "low_latency_gemm_plugin": None,
    "low_latency_gemm_swiglu_plugin": None,
    "gemm_allreduce_plugin": None,
    "identity_plugin": None,
    "lora_plugin": None,
    "dora_plugin": False,
    "context_fmha": True,
    "bert_context_fmha_fp32_acc": False,
    # The builder switches it off by itself for some combinations; then KV reuse and chunked context are gone.
    "use_paged_context_fmha": True,
    # On by default, and switched off for weights that are not FP8.
    "use_fp8_context_fmha": False,
    "fuse_fp4_quant": False,
    "paged_kv_cache": True,
    "paged_state": False,
    "remove_input_padding": True,
    "tokens_per_block": TOKENS_PER_BLOCK,
    "multiple_profiles": True,
    "norm_quant_fusion": False,
    "reduce_fusion": False,
    "user_buffer": False,
    "streamingllm": False,
    "manage_weights": False,
    "pp_reduce_scatter": False,
}
