"""`make perf` without Docker: the input and the options of perf_analyzer, and the summary of its profile."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from build_engine.mixtral import to_mixtral_config
from build_engine.tensorrt_llm.expected_config import converted_config
from tests.benchmarks.expected_speed import Load, expected_speed, mixtral_of_engine
from tests.benchmarks.perf_analyzer import levels, options, requests, summary
from tests.docker.project import ROOT
from tests.tiny_mixtral import TINY

PERF_ANALYZER = """#!{python}
import json, sys
options = dict(zip(sys.argv, sys.argv[1:]))
streams = int(options["--concurrency-range"])
prompts = json.load(open(options["--input-data"]))["data"]
if streams > 2:
    sys.exit("error: failed to get model metadata")
def answer(number):
    start = number * 100_000_000
    tokens = [start + 50_000_000 + 10_000_000 * token for token in range(6)]
    return {{"timestamp": start, "response_timestamps": tokens}}
answers = [answer(number) for number in range(int(options["--measurement-request-count"]))]
experiment = {{"experiment": {{"mode": "concurrency", "value": streams}}, "requests": answers, "window_boundaries": []}}
json.dump({{"version": "2.60.0", "experiments": [experiment]}}, open(options["--profile-export-file"], "w"))
print("Request concurrency:", streams, "prompts:", len(prompts))
"""
"""A stand-in that writes the profile of an engine which answers one request at a time, the first token after 50 ms and
then one every 10 ms. It fails with more than 2 streams."""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    file = tmp_path / "perf_analyzer"
    file.write_text(PERF_ANALYZER.format(python=sys.executable))
    file.chmod(0o755)
    engine = tmp_path / "engine"
    engine.mkdir()
    (engine / "manifest.json").write_text(json.dumps({"model": {"vocab_size": 100}}))
    return file


def run(program: Path, concurrency: str, *options: str) -> "subprocess.CompletedProcess[str]":
    """Run without installed packages, as on a GPU host, and with a program that has options, as docker compose has."""
    place = program.parent
    command = [
        sys.executable,
        "-S",
        "-m",
        "tests.benchmarks.perf_analyzer",
        str(place / "engine"),
        "--model",
        "openvino",
    ]
    command += ["--url", "triton:8001", "--directory", str(place / "perf"), "--concurrency", concurrency]
    command += options
    return subprocess.run(
        [*command, "--", "env", "--unset=HOME", str(program)],
        cwd=ROOT,
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
    )


def test_prints_a_line_for_each_number_of_streams(program: Path) -> None:
    done = run(program, "1:2")
    assert done.stdout.splitlines() == [
        # 2 answers of 6 tokens, the last token 100 + 100 ms after the first request
        "   1 streams:     60.0 tokens/s, first token after 50 ms, then one every 10.0 ms (medians of 2 answers)",
        # 4 answers of 6 tokens, within 400 ms
        "   2 streams:     60.0 tokens/s, first token after 50 ms, then one every 10.0 ms (medians of 4 answers)",
    ]
    assert (program.parent / "perf" / "2.log").read_text() == "Request concurrency: 2 prompts: 64\n"


# The config.json of an engine of Mixtral-8x7B on one GPU has these among its fields.
ENGINE_8X7B: dict[str, Any] = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_size": 128, "norm_epsilon": 1e-5,
    "max_position_embeddings": 32768, "rotary_base": 1e6, "moe": {"num_experts": 8, "top_k": 2},
    "quantization": {"group_size": 128}, "mapping": {"tp_size": 1},
}  # fmt: skip


def gpu_engine(directory: Path) -> Path:
    """What is read of a published engine for an L40S."""
    manifest = {"model": {"vocab_size": 32000}, "limits": {"max_batch_size": 32}, "sm": 89}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    (directory / "config.json").write_text(json.dumps({"pretrained_config": ENGINE_8X7B}))
    return directory


# An L40S reads 0.864 TB/s and multiplies 362 TFLOPS; of that 51 % and 45 % are expected. Two streams in 256 + 32 tokens
# of context hit 3.5 experts: 32 x (41,943,040 + 3.5 x 176,160,768) x 0.53125 + 262,144,000 + 4,194,304
# + 2 x 288 x 131,072 bytes = 11.54 GB, 13.35 ms for two tokens: 150; with 51 %: 76. 32 streams: 26.13 GB, 30.24 ms:
# 1,058 and 540. Each token of an answer has four of a prompt, 160 x 25.5 GFLOP take 11.3 ms: less.
def test_prints_what_the_plan_expects_of_a_gpu_engine(program: Path) -> None:
    gpu_engine(program.parent / "engine")
    done = run(program, "1:2", "--gpu", "l40s")
    assert [line[:69] for line in done.stdout.splitlines()] == [
        "   1 streams:     60.0 tokens/s (expected 63, at most 123), first tok",
        "   2 streams:     60.0 tokens/s (expected 76, at most 150), first tok",
    ]


def test_streams_beyond_the_batch_wait(tmp_path: Path) -> None:
    engine = gpu_engine(tmp_path)
    for streams in (32, 64):
        found = expected_speed(engine, "l40s", Load(streams=streams, prompt_tokens=256, answer_tokens=64))
        assert (found.at_most, found.expected) == pytest.approx((1_058, 540), rel=0.01)


# 20 tokens of prompts for each of answers: 32 x 21 x 25.5 GFLOP / 362 TFLOPS = 47.3 ms, 676; at 45 %: 304.
def test_long_prompts_are_bounded_by_arithmetic(tmp_path: Path) -> None:
    found = expected_speed(gpu_engine(tmp_path), "l40s", Load(streams=32, prompt_tokens=1280, answer_tokens=64))
    assert (found.at_most, found.expected) == pytest.approx((676, 304), rel=0.01)


def test_an_engine_for_another_gpu_is_measured_without_an_expectation(program: Path) -> None:
    gpu_engine(program.parent / "engine")
    done = run(program, "1", "--gpu", "h100-80g")
    remark, line = done.stdout.splitlines()
    assert remark == "no expected speed: the engine is for SM 89, GPU=h100-80g is SM 90; accepted: l40s, rtx4090"
    assert "expected" not in line


def test_the_sizes_are_read_from_the_config_that_the_build_checks() -> None:
    """`expected_config.py` says what an engine's config.json holds."""
    config = to_mixtral_config(TINY)
    model: dict[str, Any] = {}
    for path, value in converted_config(config, 2).fields.items():
        *parents, name = path.split(".")
        inner = model
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[name] = value
    assert mixtral_of_engine(model) == config
    assert model["mapping"]["tp_size"] == 2


def test_a_failure_ends_it_with_the_output_of_perf_analyzer(program: Path) -> None:
    done = run(program, "2:3")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ("error: failed to get model metadata\nperf_analyzer ended with status 1 and 3 streams\n")


def test_requests_without_a_response_are_no_answers() -> None:
    experiment = {"experiment": {"value": 4}, "requests": [{"timestamp": 0, "response_timestamps": []}]}
    with pytest.raises(SystemExit, match="got no response with 4 streams"):
        summary({"experiments": [experiment]})


def test_windows_end_after_a_number_of_answers() -> None:
    given = options("tensorrt_llm", "triton:8001", 8, Path("perf"))
    assert given == [
        *("-m", "tensorrt_llm", "-u", "triton:8001", "-i", "grpc", "--streaming", "--async"),
        *("--concurrency-range", "8", "--input-data", "perf/requests.json"),
        *("--measurement-mode", "count_windows", "--measurement-request-count", "16"),
        *("--stability-percentage", "999", "--max-trials", "3", "--profile-export-file", "perf/profile.json"),
    ]


def test_no_prompt_is_sent_twice() -> None:
    """Neither within a run nor in the next one, where the KV cache of the first would be reused."""
    prompts = [tuple(request["input_ids"]["content"]) for _ in range(2) for request in requests(32000, 50)["data"]]
    assert len(set(prompts)) == 100
    assert {token_id for prompt in prompts for token_id in prompt} <= set(range(3, 32000))


def test_a_request_has_every_tensor_in_its_shape() -> None:
    (request,) = requests(32000, 1)["data"]
    assert {name: tensor["shape"] for name, tensor in request.items()} == {
        "input_ids": [256], "input_lengths": [1], "request_output_len": [1], "end_id": [1], "pad_id": [1],
        "runtime_top_k": [1], "streaming": [True],
    }  # fmt: skip
    assert request["input_lengths"]["content"] == [256]


@pytest.mark.parametrize(("text", "found"), [("4", [4]), ("1:4", [1, 2, 3, 4]), ("1:33:8", [1, 9, 17, 25, 33])])
def test_the_concurrency_range_is_read(text: str, found: list[int]) -> None:
    assert levels(text) == found


@pytest.mark.parametrize("text", ["0", "4:1", "a", "", "1:2:3:4", "1:4:0"])
def test_an_invalid_concurrency_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        levels(text)
