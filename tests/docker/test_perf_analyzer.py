"""`make perf` without Docker: the input and the options of perf_analyzer, and the summary of its profile."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.perf_analyzer import levels, options, requests, summary
from tests.docker.project import ROOT

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


def run(program: Path, concurrency: str) -> "subprocess.CompletedProcess[str]":
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
