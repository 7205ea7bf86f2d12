"""The plan's figures for Mixtral-8x7B, each with its derivation."""

import json
from pathlib import Path
from typing import Any

import pytest

from build_engine.__main__ import main
from build_engine.mixtral import MixtralConfig, to_mixtral_config
from build_engine.tensorrt_llm.gpus import GPUS, refusal
from build_engine.tensorrt_llm.plan import (
    Plan,
    build_host_bytes,
    convert_host_bytes,
    make_plan,
    step_bytes,
    weight_bytes,
)
from tests.tiny_mixtral import TINY

GIB = 2**30

MIXTRAL_8X7B: dict[str, Any] = {
    **TINY,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "max_position_embeddings": 32768,
    "quantization_config": {**TINY["quantization_config"], "group_size": 128},
}


@pytest.fixture(scope="module")
def config() -> MixtralConfig:
    return to_mixtral_config(MIXTRAL_8X7B)


def plan_of(config: MixtralConfig, gpu: str, tp_size: int) -> Plan:
    plan = make_plan(config, GPUS[gpu], tp_size)
    assert isinstance(plan, Plan)
    return plan


# 46,439,333,888 quantised parameters, 4 bits, a float16 scale and a float16 zero per 128: 24,670,896,128 bytes, split.
# Embedding (262,144,000), router in float32 (4,194,304) and norms (532,480) on each GPU; lm_head (262,144,000) split.
@pytest.mark.parametrize(
    ("tp_size", "weights"),
    [(1, 25_199_910_912), (2, 12_733_390_848), (4, 6_500_130_816), (8, 3_383_500_800)],
)
def test_weights_per_gpu(config: MixtralConfig, tp_size: int, weights: int) -> None:
    assert weight_bytes(config, tp_size) == weights


# Converting: the whole source and one rank. Building: each rank three times, all at once. 4 GiB of temporaries.
@pytest.mark.parametrize(
    ("tp_size", "convert_gib", "build_gib"), [(1, 50.9, 74.4), (2, 39.3, 75.2), (4, 33.5, 76.6), (8, 30.6, 79.6)]
)
def test_host_memory_of_converting_and_building(
    config: MixtralConfig, tp_size: int, convert_gib: float, build_gib: float
) -> None:
    assert convert_host_bytes(config, tp_size) / GIB == pytest.approx(convert_gib, abs=0.1)
    assert build_host_bytes(config, tp_size) / GIB == pytest.approx(build_gib, abs=0.1)


# 2 (keys, values) x 32 layers x 8 heads x 128 x 2 bytes = 131,072; a GPU of n holds the n-th part.
@pytest.mark.parametrize(("tp_size", "kib"), [(1, 128), (2, 64), (4, 32), (8, 16)])
def test_kv_cache_bytes_per_token(config: MixtralConfig, tp_size: int, kib: int) -> None:
    assert plan_of(config, "h200", tp_size).kv_bytes_per_token == kib * 1024


# (usable - weights - 3 GiB runtime) x 0.9 / bytes per token: e.g. (79 - 23.47 - 3) x 0.9 = 47.3 GiB / 128 KiB = 387 k.
@pytest.mark.parametrize(
    ("gpu", "tp_size", "tokens"),
    [
        ("l40s", 1, 133_000),
        ("a6000", 1, 133_000),
        ("l40s", 2, 437_000),
        ("h100-80g", 1, 387_000),
        ("a100-80g", 1, 387_000),
        ("h100-80g", 2, 946_000),
        ("h200", 1, 833_000),  # (139.5 - 23.47 - 3) x 0.9 = 101.7 GiB
        ("rtx4090", 1, 0),  # 23.5 GiB do not hold 23.47 GiB and a runtime
    ],
)
def test_tokens_of_kv_cache(config: MixtralConfig, gpu: str, tp_size: int, tokens: int) -> None:
    assert plan_of(config, gpu, tp_size).kv_tokens == pytest.approx(tokens, rel=0.01)


# 387 k tokens: 189 requests of 2 k, 11 of 32 k. Shared by 128: 3,025, in whole blocks of 32: 3,008.
def test_longest_sequence_is_bounded_by_positions_and_by_the_cache(config: MixtralConfig) -> None:
    assert plan_of(config, "h100-80g", 1).longest_sequences == {1: 32768, 8: 32768, 32: 12096, 128: 3008}


# Bandwidth / bytes per step. Bytes: 32 layers x (attention 41,943,040 + n x 176,160,768) x 0.53125 + lm_head and router
# + batch x 512 x 131,072, with n = 8 (1 - 0.75^batch) experts hit: 7.03, 23.07, 27.08 and 33.53 GB.
@pytest.mark.parametrize(
    ("gpu", "tokens_per_s"),
    [
        ("h200", (682, 1_664, 5_672, 18_326)),
        ("h100-80g", (476, 1_162, 3_959, 12_790)),
        ("a100-80g", (290, 707, 2_409, 7_785)),
        ("l40s", (123, 300, 1_021, 3_299)),
        ("a6000", (109, 266, 908, 2_932)),
    ],
)
def test_roofline(config: MixtralConfig, gpu: str, tokens_per_s: tuple[float, ...]) -> None:
    by_batch = plan_of(config, gpu, 1).tokens_per_s
    assert list(by_batch) == [1, 8, 32, 128]
    assert list(by_batch.values()) == pytest.approx(tokens_per_s, rel=0.01)


@pytest.mark.parametrize(("batch_size", "gigabytes"), [(1, 7.03), (8, 23.07), (32, 27.08), (128, 33.53)])
def test_bytes_per_step(config: MixtralConfig, batch_size: int, gigabytes: float) -> None:
    assert step_bytes(config, 1, batch_size) == pytest.approx(gigabytes * 1e9, rel=0.01)


def test_arithmetic_bounds_a_gpu_with_bandwidth_to_spare(config: MixtralConfig) -> None:
    gpu = GPUS["a6000"]
    fast = type(gpu)(name="fast", sm=86, memory_gib=48, bandwidth_tb_s=1000, float16_tflops=25.5)
    plan = make_plan(config, fast, 1)
    assert isinstance(plan, Plan)
    # 25.5 GFLOP per token.
    assert plan.tokens_per_s[128] == pytest.approx(1000, rel=0.01)


@pytest.mark.parametrize(
    ("gpu", "tp_size", "sizes"),
    [("h100-80g", 1, (256, 8192)), ("l40s", 1, (64, 4096)), ("l40s", 2, (128, 4096)), ("rtx4090", 2, (32, 2048))],
)
def test_recommended_config_pbtxt(config: MixtralConfig, gpu: str, tp_size: int, sizes: tuple[int, int]) -> None:
    recommended = plan_of(config, gpu, tp_size).recommended
    assert recommended is not None
    assert (recommended.max_batch_size, recommended.max_num_tokens) == sizes
    assert (recommended.max_seq_len, recommended.tensor_parallel_size) == (32768, tp_size)


def test_a_split_that_would_be_padded_is_not_planned() -> None:
    config = to_mixtral_config(TINY)  # intermediate size 192 = 3 x 64
    assert make_plan(config, GPUS["h100-80g"], 2) == (
        "tensor_parallel_size 2 would pad intermediate_size of 192; accepted: multiples of 128"
    )


def test_plan_command_reads_a_config_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(MIXTRAL_8X7B))
    assert main(["plan", str(tmp_path / "config.json"), "--gpu", "h100-80g"]) == 0
    of_file = capsys.readouterr().out
    assert main(["plan", str(tmp_path), "--gpu", "h100-80g"]) == 0
    assert capsys.readouterr().out == of_file
    assert "23.47 GiB (25199910912 bytes)" in of_file
    assert "387296 tokens" in of_file
    assert of_file.count("\nTP ") == 4


def test_memory_given_replaces_the_gpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(MIXTRAL_8X7B))
    assert main(["plan", str(tmp_path), "--gpu", "h100-80g", "--memory-gib", "26"]) == 0
    tp_1, tp_2, *_ = capsys.readouterr().out.split("\nTP ")[1:]
    assert "does not fit" in tp_1
    assert "does not fit" not in tp_2


@pytest.mark.parametrize(
    ("sm", "reason"),
    [
        (80, None),
        (86, None),
        (89, None),
        (90, None),
        (75, "older"),
        (100, "Blackwell"),
        (103, "Blackwell"),
        (120, "120"),
    ],
)
def test_architectures(sm: int, reason: str | None) -> None:
    assert (refusal(sm) is None) == (reason is None)
    assert (reason or "") in (refusal(sm) or "")
