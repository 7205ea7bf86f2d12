"""config.pbtxt of the GPU model: valid by Triton's schema, with the tensors of the CPU model, and without variables."""

import re
from dataclasses import replace
from itertools import pairwise

import pytest
from google.protobuf import text_format
from google.protobuf.json_format import MessageToDict
from tritonclient.grpc.model_config_pb2 import ModelConfig

from build_engine.checkpoint import Checkpoint
from build_engine.errors import BuildError, CheckpointError
from build_engine.mixtral import to_mixtral_config
from build_engine.model_config import Limits, read_serving_config
from build_engine.tensorrt_llm.build import open_build
from build_engine.tensorrt_llm.commands import Toolchain
from build_engine.tensorrt_llm.gpus import GPUS
from build_engine.tensorrt_llm.memory import kv_tokens
from build_engine.tensorrt_llm.speed import speed
from frontend.generation import EndTokens, GenerationRequest, SamplingParams
from frontend.triton.tensors import encode_request, read_engine
from tests.build_engine.tensorrt_llm.conftest import ROOT, GpuHost
from tests.build_engine.tensorrt_llm.test_plan import MIXTRAL_8X7B

CONFIG_PBTXT = ROOT / "model_repository" / "tensorrt_llm" / "config.pbtxt"
GPU_HOST = ROOT / "docs" / "gpu-host.md"


def parse(model: str) -> ModelConfig:
    text = (ROOT / "model_repository" / model / "config.pbtxt").read_text()
    return text_format.Parse(text, ModelConfig())


def shape_of(tensor: object) -> str:
    """Name, type, dims, reshape and flags of a tensor, as text."""
    return text_format.MessageToString(tensor)  # type: ignore[arg-type]


def test_limits_can_be_read() -> None:
    config = read_serving_config(CONFIG_PBTXT)
    assert config.limits == Limits(max_batch_size=256, max_seq_len=32768, max_num_tokens=8192)
    assert config.tensor_parallel_size == 1


ONLY_OF_THE_CPU_MODEL = {
    "runtime_min_p", "num_top_log_probs", "num_prompt_top_log_probs",
    "token_log_probs", "token_ranks", "top_token_ids", "top_log_probs",
    "prompt_token_log_probs", "prompt_token_ranks", "prompt_top_token_ids", "prompt_top_log_probs",
}  # fmt: skip
"""TensorRT-LLM's model has none of them (release 1.2); what they are for is refused by name."""


def test_offers_every_tensor_of_the_cpu_model_with_type_and_shape() -> None:
    gpu, cpu = parse("tensorrt_llm"), parse("openvino")
    for offered, wanted in ((gpu.input, cpu.input), (gpu.output, cpu.output)):
        common = [tensor for tensor in wanted if tensor.name not in ONLY_OF_THE_CPU_MODEL]
        assert {shape_of(tensor) for tensor in common} <= {shape_of(tensor) for tensor in offered}


def test_offers_every_tensor_that_the_frontend_sends() -> None:
    engine = read_engine(MessageToDict(parse("tensorrt_llm"), preserving_proto_field_name=True))
    all_parameters = SamplingParams(
        max_tokens=10,
        temperature=0.7,
        top_p=0.9,
        top_k=40,
        repetition_penalty=1.1,
        presence_penalty=0.5,
        frequency_penalty=0.5,
        min_tokens=3,
        seed=42,
    )
    request = GenerationRequest(
        prompt_token_ids=[1], sampling_params=all_parameters, end_tokens=EndTokens(end_id=2, pad_id=2)
    )
    assert encode_request(request, engine).keys() <= engine.inputs
    assert (engine.max_batch_size, engine.max_seq_len) == (256, 32768)


def test_serves_in_flight_streams_of_one_engine() -> None:
    config = parse("tensorrt_llm")
    assert (config.name, config.backend) == ("tensorrt_llm", "tensorrtllm")
    assert config.model_transaction_policy.decoupled
    assert list(config.dynamic_batching.preferred_batch_size) == [config.max_batch_size]
    assert config.dynamic_batching.max_queue_delay_microseconds == 0
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 256
    values = {key: parameter.string_value for key, parameter in config.parameters.items()}
    assert values["gpt_model_type"] == "inflight_fused_batching"
    assert values["batch_scheduler_policy"] == "guaranteed_no_evict"
    assert values["enable_kv_cache_reuse"] == values["enable_chunked_context"] == "true"
    assert values["guided_decoding_backend"] == "xgrammar"


# Tokens of KV cache: (79 - 23.47 - 3) GiB x 0.9 / 128 KiB = 387,296. Each request reserves its prompt and max_tokens.
@pytest.mark.parametrize(
    ("max_tokens", "requests"), [(32768 - 500, 11), (8192, 44), (4096, 84), (2048, 152), (1024, 254)]
)
def test_how_many_requests_the_kv_cache_holds_at_each_default(max_tokens: int, requests: int) -> None:
    """The figures of docs/gpu-host.md, for prompts of 500 tokens on one H100 of 80 GB."""
    config, gpu = to_mixtral_config(MIXTRAL_8X7B), GPUS["h100-80g"]
    held = kv_tokens(config, gpu.memory_gib, 1) // (500 + max_tokens)
    assert held == requests
    assert f"| {max_tokens:,} | {requests} | {speed(config, gpu, 1, held).at_most:,.0f} |" in GPU_HOST.read_text()


def test_the_default_of_max_tokens_is_that_of_the_figures() -> None:
    values = {key: parameter.string_value for key, parameter in parse("tensorrt_llm").parameters.items()}
    assert values["default_max_tokens"] == "2048"


def test_names_no_tensor_that_is_broken_upstream() -> None:
    """One reads 4 bytes of a 1-byte tensor, the other is read under another name, the third distorts the output."""
    inputs = {tensor.name for tensor in parse("tensorrt_llm").input}
    assert not inputs & {"early_stopping", "runtime_top_p_min", "num_return_sequences"}


def test_has_no_variables() -> None:
    assert "${" not in CONFIG_PBTXT.read_text()


def test_paths_point_at_what_the_build_publishes() -> None:
    values = {key: parameter.string_value for key, parameter in parse("tensorrt_llm").parameters.items()}
    assert values["gpt_model_path"].endswith("/tensorrt_llm/1/engine")
    assert values["tokenizer_dir"] == values["gpt_model_path"]
    assert values["xgrammar_tokenizer_info_path"] == values["gpt_model_path"] + "/xgrammar_tokenizer_info.json"


def test_every_number_has_a_comment() -> None:
    """A line with a number is preceded by a comment, or by a line that is."""
    lines = CONFIG_PBTXT.read_text().split("parameters [")[1].splitlines()
    for above, line in pairwise(lines):
        if re.search(r'string_value: "[\d.]+"', line):
            assert above.strip().startswith("#"), line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tensor_parallel_size": 3}, "tensor_parallel_size is 3; accepted: 1, 2, 4 or 8"),
        ({"tensor_parallel_size": 4}, "tensor_parallel_size 4 does not divide num_key_value_heads 2"),
        ({"max_seq_len": 8193}, "max_seq_len is 8193; accepted: at most 8192"),
        ({"tokens_per_block": 64}, "tokens_per_block is 64; accepted: 32"),
        ({"max_num_tokens": 0}, "parameter max_num_tokens is '0'; accepted: a positive integer"),
        ({"max_num_tokens": 131073}, "max_num_tokens is 131073; accepted: 32 to 131072, which is max_batch_size times"),
        ({"max_num_tokens": 31}, "max_num_tokens is 31; accepted: 32 to 131072, which is max_batch_size times"),
        ({"tensor_parallel_size": 0}, "parameter tensor_parallel_size is '0'; accepted: a positive integer"),
    ],
)
def test_limits_that_do_not_suit_the_checkpoint(
    host: GpuHost, source: Checkpoint, changes: dict[str, int], message: str
) -> None:
    host.configure(**changes)
    with pytest.raises(BuildError, match=re.escape(message)):
        open_build(source, host.model_dir, Toolchain())


def test_a_batch_that_triton_would_refuse_after_the_build(host: GpuHost, source: Checkpoint) -> None:
    host.configure()
    config_pbtxt = host.model_dir / "config.pbtxt"
    config_pbtxt.write_text(config_pbtxt.read_text().replace("max_batch_size: 256", "max_batch_size: 64"))
    with pytest.raises(BuildError, match="preferred_batch_size is 256; accepted: at most 64, the max_batch_size"):
        open_build(source, host.model_dir, Toolchain())


def test_a_checkpoint_without_a_head_of_its_own(host: GpuHost, source: Checkpoint) -> None:
    tied = replace(source, config=replace(source.config, tie_word_embeddings=True))
    with pytest.raises(CheckpointError, match="tie_word_embeddings is true"):
        open_build(tied, host.model_dir, Toolchain())


def test_weights_that_only_the_converter_would_read(host: GpuHost, source: Checkpoint) -> None:
    directory = host.directory / "checkpoint"
    directory.mkdir()
    for file in source.path.iterdir():
        (directory / file.name).symlink_to(file)
    (directory / "adapter.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"adapter\.safetensors: not in the index"):
        open_build(replace(source, path=directory), host.model_dir, Toolchain())
