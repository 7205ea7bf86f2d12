"""vLLM 0.4 as its source has it, releases 0.4.0.post1, 0.4.1, 0.4.2 and 0.4.3. A release stands for the first that has
a name; an empty one means that all have it.

Flags: vllm/entrypoints/openai/cli_args.py and vllm/engine/arg_utils.py. Fields: vllm/entrypoints/openai/protocol.py.
Metrics: vllm/engine/metrics.py.
"""

from collections.abc import Mapping


def _by_name(names: Mapping[str, str]) -> dict[str, str]:
    """Name to release, from release to names."""
    return {name: release for release, several in names.items() for name in several.split()}


FLAGS = _by_name(
    {
        "": """
            --host --port --uvicorn-log-level --allow-credentials --allowed-origins --allowed-methods --allowed-headers
            --api-key --served-model-name --lora-modules --chat-template --response-role --ssl-keyfile --ssl-certfile
            --ssl-ca-certs --ssl-cert-reqs --root-path --middleware --model --tokenizer --revision --code-revision
            --tokenizer-revision --tokenizer-mode --trust-remote-code --download-dir --load-format --dtype
            --kv-cache-dtype --max-model-len --worker-use-ray --pipeline-parallel-size -pp --tensor-parallel-size -tp
            --max-parallel-loading-workers --ray-workers-use-nsight --block-size --enable-prefix-caching
            --use-v2-block-manager --num-lookahead-slots --seed --swap-space --gpu-memory-utilization
            --max-num-batched-tokens --max-num-seqs --max-logprobs --disable-log-stats --quantization -q --enforce-eager
            --max-context-len-to-capture --disable-custom-all-reduce --tokenizer-pool-size --tokenizer-pool-type
            --tokenizer-pool-extra-config --enable-lora --max-loras --max-lora-rank --lora-extra-vocab-size --lora-dtype
            --max-cpu-loras --device --image-input-type --image-token-id --image-input-shape --image-feature-size
            --scheduler-delay-factor --enable-chunked-prefill --engine-use-ray --disable-log-requests --max-log-len
        """,
        "0.4.0 only": "--forced-num-gpu-blocks",
        "0.4.1": """
            --skip-tokenizer-init --quantization-param-path --guided-decoding-backend --num-gpu-blocks-override
            --speculative-model --num-speculative-tokens --speculative-max-model-len --model-loader-extra-config
        """,
        "0.4.2 only": "--max-seq_len-to-capture",
        "0.4.2": "--fully-sharded-loras --ngram-prompt-lookup-max --ngram-prompt-lookup-min",
        "0.4.3": """
            --distributed-executor-backend --disable-sliding-window --rope-scaling --max-seq-len-to-capture
            --long-lora-scaling-factors --speculative-disable-by-batch-size
        """,
    }
)

_SHARED = """
    model frequency_penalty logit_bias logprobs max_tokens n presence_penalty response_format seed stop stream
    temperature top_p user best_of use_beam_search top_k min_p repetition_penalty length_penalty early_stopping
    ignore_eos min_tokens stop_token_ids skip_special_tokens spaces_between_special_tokens echo
    include_stop_str_in_output guided_json guided_regex guided_choice guided_grammar guided_decoding_backend
    guided_whitespace_pattern
"""
CHAT_FIELDS = [*_SHARED.split(), "messages", "top_logprobs", "add_generation_prompt"]
COMPLETION_FIELDS = [*_SHARED.split(), "prompt", "suffix", "truncate_prompt_tokens"]
LATER_FIELDS = {
    "guided_decoding_backend": "0.4.1",
    "truncate_prompt_tokens": "0.4.1",
    "guided_whitespace_pattern": "0.4.2",
}

METRICS = _by_name(
    {
        "": """
            vllm:num_requests_running vllm:num_requests_waiting vllm:num_requests_swapped vllm:gpu_cache_usage_perc
            vllm:cpu_cache_usage_perc vllm:cache_config_info vllm:prompt_tokens_total vllm:generation_tokens_total
            vllm:time_to_first_token_seconds vllm:time_per_output_token_seconds vllm:e2e_request_latency_seconds
            vllm:avg_prompt_throughput_toks_per_s vllm:avg_generation_throughput_toks_per_s
        """,
        "0.4.2": """
            vllm:request_success_total vllm:request_prompt_tokens vllm:request_generation_tokens
            vllm:request_params_best_of vllm:request_params_n
        """,
        "0.4.3": "vllm:num_preemptions_total",
    }
)
