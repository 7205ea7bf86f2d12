"""The plan's figures for Mixtral-8x7B, each with its derivation."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from build_engine.__main__ import main
from build_engine.mixtral import MixtralConfig, to_mixtral_config
from build_engine.tensorrt_llm.gpus import GPUS, refusal
from build_engine.tensorrt_llm.memory import build_host_bytes, convert_host_bytes, weight_bytes
from build_engine.tensorrt_llm.plan import Plan, make_plan
from build_engine.tensorrt_llm.plan_report import report
from build_engine.tensorrt_llm.profiles import PROFILES, Profile, profile_limits
from build_engine.tensorrt_llm.speed import full_step_s, speed, step_bytes
from tests.build_engine.tensorrt_llm.conftest import ROOT
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
    speeds = plan_of(config, gpu, 1).speeds
    assert list(speeds) == [1, 8, 32, 128]
    assert [found.at_most for found in speeds.values()] == pytest.approx(tokens_per_s, rel=0.01)


@pytest.mark.parametrize(("batch_size", "gigabytes"), [(1, 7.03), (8, 23.07), (32, 27.08), (128, 33.53)])
def test_bytes_per_step(config: MixtralConfig, batch_size: int, gigabytes: float) -> None:
    assert step_bytes(config, 1, batch_size, batch_size) == pytest.approx(gigabytes * 1e9, rel=0.01)


def test_arithmetic_bounds_a_gpu_with_bandwidth_to_spare(config: MixtralConfig) -> None:
    gpu = GPUS["a6000"]
    fast = type(gpu)(name="fast", sm=86, memory_gib=48, bandwidth_tb_s=1000, float16_tflops=25.5)
    # 25.5 GFLOP per token.
    assert speed(config, fast, 1, 128).at_most == pytest.approx(1000, rel=0.01)
    # With four tokens of prompts for each of answers, a fifth. A step of 1,000 tokens, at 45 %: 1 / 0.45 s.
    assert speed(config, fast, 1, 128, prompt_tokens=4).at_most == pytest.approx(200, rel=0.01)
    assert full_step_s(config, fast, 1, batch_size=8, num_tokens=1000, context=512) == pytest.approx(2.22, rel=0.01)


# 51 % of the bandwidth: 3.35 TB/s x 0.51 / 7.03 GB = 243, / 27.08 GB x 32 = 2,019; 0.864 x 0.51 / 7.03 = 62.7.
@pytest.mark.parametrize(
    ("gpu", "batch_size", "tokens_per_s"),
    [("h100-80g", 1, 243), ("h100-80g", 32, 2_019), ("l40s", 1, 62.7), ("l40s", 32, 521), ("a100-80g", 1, 148)],
)
def test_expected_speed(config: MixtralConfig, gpu: str, batch_size: int, tokens_per_s: float) -> None:
    assert plan_of(config, gpu, 1).speeds[batch_size].expected == pytest.approx(tokens_per_s, rel=0.01)


# At a batch of 256 on one A100: 33.53 + 128 x 512 x 131,072 bytes = 42.1 GB / (2.039 TB/s x 0.51) = 40.5 ms, and
# 256 x 25.5 GFLOP / (312 TFLOPS x 0.45) = 46.5 ms: arithmetic decides, 256 / 46.5 ms = 5,506.
def test_expected_speed_where_arithmetic_decides(config: MixtralConfig) -> None:
    assert speed(config, GPUS["a100-80g"], 1, 256).expected == pytest.approx(5_506, rel=0.01)


# The batch: the KV cache by 2,548 tokens (500 and max_tokens 2,048), or by 1,500, down to a power of two, at most 512:
# 387,296 / 2,548 = 152 -> 128 and / 1,500 = 258 -> 256; 132,928 -> 52, 88; 437,056 -> 171, 291; 833,344 -> 327, 555.
# The step: tokens x 25.5 GFLOP / GPUs / (peak x 0.45) within 200 ms, or 2 s, of 8192, 4096, 2048, ... by memory:
# H100 2048: 117 ms, 4096: 235; A100 1024: 186, 2048: 372; L40S 1024: 160; A6000 512: 187; two 4090 1024: 176 ms.
@pytest.mark.parametrize(
    ("gpu", "tp_size", "interactive", "throughput"),
    [
        ("h100-80g", 1, (152, 128, 2048, 117), (258, 256, 8192, 469)),
        ("h200", 1, (327, 256, 2048, 117), (555, 512, 8192, 469)),
        ("a100-80g", 1, (152, 128, 1024, 186), (258, 256, 8192, 1488)),
        ("l40s", 1, (52, 32, 1024, 160), (88, 64, 4096, 641)),
        ("l40s", 2, (171, 128, 2048, 160), (291, 256, 4096, 321)),
        ("a6000", 1, (52, 32, 512, 187), (88, 64, 4096, 1499)),
        ("rtx4090", 2, (49, 32, 1024, 176), (84, 64, 2048, 351)),
    ],
)
def test_limits_of_the_profiles(
    config: MixtralConfig,
    gpu: str,
    tp_size: int,
    interactive: tuple[int, int, int, int],
    throughput: tuple[int, int, int, int],
) -> None:
    profiles = plan_of(config, gpu, tp_size).profiles
    for planned, expected in zip(
        (profiles["interactive"], profiles["throughput"]), (interactive, throughput), strict=True
    ):
        limits = planned.limits
        found = (planned.kv_cache_requests, limits.max_batch_size, limits.max_num_tokens, round(planned.step_s * 1000))
        assert found == expected
        assert limits.max_seq_len == 32768


def test_a_small_model_reserves_no_more_than_its_context() -> None:
    """8,192 tokens: a request reserves 2,548. 1,024: it reserves all, and the KV cache holds as many more."""
    gpu = GPUS["h100-80g"]
    for context, reserved in ((8192, 2548), (1024, 1024)):
        small = to_mixtral_config({**TINY, "max_position_embeddings": context})
        planned = profile_limits(PROFILES["interactive"], small, gpu, 1)
        assert planned is not None
        assert (planned.reserved_tokens, planned.limits.max_seq_len) == (reserved, context)
        assert planned.limits.max_batch_size == 512


# 0.2 TB/s x 0.51 = 102 GB/s. All weights but the embedding: 24.9 GB; 2,548 tokens of context: 0.334 GB. 32 requests:
# 35.6 GB, 349 ms; 64: 46.3 GB, 454 ms. A step of 4096 tokens multiplies for 235 ms, of 8192 for 469.
def test_a_slow_gpu_gets_a_smaller_batch_than_its_memory_holds(config: MixtralConfig) -> None:
    slow = replace(GPUS["h100-80g"], bandwidth_tb_s=0.2)
    planned = profile_limits(Profile(name="chat", max_tokens=2048, longest_step_s=0.4), config, slow, 1)
    assert planned is not None
    limits = planned.limits
    assert (planned.kv_cache_requests, limits.max_batch_size, limits.max_num_tokens) == (152, 32, 4096)
    assert planned.step_s == pytest.approx(0.349, rel=0.01)


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
    assert row(of_file, "tensor_parallel_size") == ["1", "2", "4", "8"]
    assert row(of_file, "weights per GPU") == ["23.47 GiB", "11.86 GiB", "6.05 GiB", "3.15 GiB"]
    assert row(of_file, "KV cache, tokens")[0] == "387,296"
    assert row(of_file, "  with 1")[0] == "243 (476)"
    assert [line[28:46].split() for line in of_file.splitlines() if "max_batch_size" in line] == [["128"], ["256"]]
    assert max(map(len, of_file.splitlines())) <= 100


def test_memory_given_replaces_the_gpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(MIXTRAL_8X7B))
    assert main(["plan", str(tmp_path), "--gpu", "h100-80g", "--memory-gib", "26"]) == 0
    shown = capsys.readouterr().out
    assert row(shown, "tensor_parallel_size") == ["2", "4", "8"]
    assert "\nTP 1: does not fit: weights take 23.47 and the runtime 3 GiB of 26\n" in shown


def test_a_model_that_cannot_be_split_is_planned_for_one_gpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    assert main(["plan", str(tmp_path), "--gpu", "h100-80g"]) == 0
    shown = capsys.readouterr().out
    assert row(shown, "tensor_parallel_size") == ["1"]
    assert "\nTP 2: not possible: tensor_parallel_size 2 would pad intermediate_size of 192;" in shown


def test_a_model_that_fits_on_none_has_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(MIXTRAL_8X7B))
    assert main(["plan", str(tmp_path), "--gpu", "h100-80g", "--memory-gib", "6"]) == 0
    shown = capsys.readouterr().out
    assert "interactive" not in shown
    assert shown.count("does not fit") == 4


def test_a_sliding_window_that_bounds_the_context_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = "max_seq_len is bounded by sliding_window, 4,096, below max_position_embeddings, 32,768."
    for window, shown in ((4096, True), (32768, False), (None, False)):
        (tmp_path / "config.json").write_text(json.dumps({**MIXTRAL_8X7B, "sliding_window": window}))
        assert main(["plan", str(tmp_path), "--gpu", "h100-80g"]) == 0
        assert (named in capsys.readouterr().out) is shown


def test_json_has_the_figures_of_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(MIXTRAL_8X7B))
    assert main(["plan", str(tmp_path), "--gpu", "rtx4090", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["gpu"]["name"] == "rtx4090"
    assert found["plans"]["1"]["kv_tokens"] == 0
    assert found["plans"]["1"]["profiles"] == {}
    assert found["plans"]["2"]["weight_bytes"] == 12_733_390_848
    assert found["plans"]["2"]["profiles"]["interactive"]["limits"] == {
        "max_batch_size": 32, "max_seq_len": 32768, "max_num_tokens": 1024, "gather_generation_logits": False
    }  # fmt: skip


def test_the_gpu_hosts_page_shows_what_the_command_prints() -> None:
    printed = report(to_mixtral_config(MIXTRAL_8X7B), GPUS["l40s"])
    assert f"```\n{printed}\n```" in (ROOT / "docs" / "gpu-host.md").read_text()


@pytest.mark.parametrize("page", ["README.md", "docs/gpu-host.md"])
def test_the_pages_name_the_smallest_gpus_that_the_plan_has(config: MixtralConfig, page: str) -> None:
    assert re.search("one gpu of 48 gb or two of 24 gb at least", (ROOT / page).read_text().lower())
    assert plan_of(config, "l40s", 1).kv_tokens > 0  # 48 GB
    assert plan_of(config, "rtx4090", 1).kv_tokens == 0  # 24 GB
    assert plan_of(config, "rtx4090", 2).kv_tokens > 0


def row(shown: str, label: str) -> list[str]:
    """The cells of the first row with this label."""
    line = next(line for line in shown.splitlines() if line.startswith(f"{label} "))
    return re.split(r" {2,}", line.removeprefix(label).strip())


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
