"""The whole self check: on a GPU host made of doubles, on one where something is wrong, and without a GPU."""

import re
from collections.abc import Mapping

import pytest

from build_engine.selfcheck import installed
from build_engine.selfcheck.load import SUBJECTS
from tests.build_engine.selfcheck.conftest import Outcome, SelfCheckHost
from tests.build_engine.selfcheck.tritonserver import BUSY
from tests.build_engine.tensorrt_llm.conftest import H100

NO_DIGESTS = 6
"""Files whose digests in release 1.2.1 are not on record."""
STEPS = ("convert", "verify", "build", "publish", "serve", *SUBJECTS, "little KV cache")


def only_the_tiny_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the checks of what is installed, which start some twenty programs and have tests of their own."""
    for checks in ("installed_checks", "weight_order_checks"):
        monkeypatch.setattr(f"build_engine.selfcheck.run.{checks}", lambda *_: ())


def test_everything_passes_on_one_gpu_and_on_two(two_gpus: tuple[SelfCheckHost, Outcome]) -> None:
    _, outcome = two_gpus
    assert outcome.status == 0, outcome.report
    for gpus in ("1 GPU", "2 GPUs"):
        assert {step: outcome[f"{gpus}: {step}"][0] for step in STEPS} == dict.fromkeys(STEPS, "passed")
    assert outcome.statuses() == {"not known": NO_DIGESTS, "passed": 14 + 2 * len(STEPS)}
    assert outcome.report.splitlines()[-1] == f"{14 + 2 * len(STEPS)} passed, 0 failed, {NO_DIGESTS} not known"


def test_lines_say_what_was_found_and_what_it_took(two_gpus: tuple[SelfCheckHost, Outcome]) -> None:
    _, outcome = two_gpus
    cost = r"\(\d+\.\d s, \d+ MiB of host memory, 565 MiB of GPU memory\)"
    for subject, text in {
        "GPUs": r"NVIDIA H100 80GB HBM3 \(SM 90, 80994 of 81559 MiB free\), .*; driver 590.44.01, CUDA 13.1 " + cost,
        "versions: Triton": "2.71.0 " + cost,
        "weight order: NVIDIA's, experts, SM 90": "49152 bytes of random weights are the same " + cost,
        "1 GPU: convert": r"\d+ s, at most \d+ MiB of host and 565 MiB of GPU memory",
        "1 GPU: 64 streams": "all complete; 64 answers are the same to the last token as alone " + cost,
        "1 GPU: closed connections": r"8 of 9 closed: 1 was active \d\.\d s later, and 0 \d\.\d s after the last "
        + cost,
        "2 GPUs: SIGTERM in mid-stream": (
            r"the stream was completed with 20\d\d tokens in \d+\.\d s, and Triton ended with status 0 " + cost
        ),
        "2 GPUs: little KV cache": (
            "8 requests in 512 tokens of KV cache: complete, the guided one valid, none paused " + cost
        ),
    }.items():
        assert re.fullmatch(text, outcome[subject][1]), outcome[subject]


def test_the_report_has_no_path(two_gpus: tuple[SelfCheckHost, Outcome]) -> None:
    host, outcome = two_gpus
    assert str(host.host.directory) not in outcome.report
    assert not re.search(r"(?<![\w.>])/\w", outcome.report)
    assert (host.work_dir / "report.txt").read_text() == outcome.report


def test_the_published_engine_is_not_touched(two_gpus: tuple[SelfCheckHost, Outcome]) -> None:
    host, _ = two_gpus
    assert {path.name for path in host.host.engine_dir.parent.iterdir()} == {".engine.selfcheck"}
    assert {path.name for path in host.work_dir.iterdir()} == {"report.txt", "passed.json"}


def test_once_is_once_for_each_image_and_kind_of_gpu(
    two_gpus: tuple[SelfCheckHost, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    host, _ = two_gpus
    only_the_tiny_engine(monkeypatch)
    again = host.run("--once", "--image", "sha256:1")
    assert (again.status, again.report) == (0, "selfcheck: this image has passed on these GPUs before\n")
    one_gpu = {"DOUBLE_GPUS": H100, "DOUBLE_FAULT": "disk_full"}
    for options, environment in (
        (["--image", "sha256:2"], {"DOUBLE_FAULT": "disk_full"}),
        (["--image", "sha256:1"], one_gpu),
    ):
        other = host.run("--once", *options, **environment)
        assert other.status == 2
        assert other["1 GPU: convert"][0] == "failed"
    assert host.run("--once", "--image", "sha256:1", DOUBLE_FAULT="disk_full").status == 2, "a failure is not a pass"


@pytest.mark.parametrize(
    ("environment", "failed"),
    [
        ({"DOUBLE_FAULT": "disk_full"}, {"convert": "the disk is full"}),
        ({"DOUBLE_FAULT": "unquantized"}, {"verify": "quant_algo"}),
        ({"DOUBLE_FAULT": "builder_out_of_memory"}, {"build": "GPU memory ran out"}),
        ({"DOUBLE_FAULT": "not_repeatable"}, {"publish": "answers a greedy request in two ways"}),
        ({"SERVER_FAULT": "does_not_serve"}, {"serve": "serve: tritonserver ended with status 1"}),
        ({"SERVER_FAULT": "other_when_busy"}, {"64 streams": "answers a greedy request in two ways: token"}),
        ({"SERVER_FAULT": "keeps_closed"}, {"closed connections": "requests are active 1 s after a close"}),
        ({"SERVER_FAULT": "fails_at_exit"}, {"SIGTERM in mid-stream": "Triton ended with status 1 after SIGTERM"}),
        ({"SERVER_FAULT": "cuts_at_sigterm"}, {"SIGTERM in mid-stream": "tokens and no error"}),
        ({"SERVER_FAULT": "pauses"}, {"little KV cache": "3 requests are paused; accepted: none"}),
    ],
)
def test_a_failure_shows_in_its_line(
    selfcheck_host: SelfCheckHost,
    monkeypatch: pytest.MonkeyPatch,
    environment: Mapping[str, str],
    failed: Mapping[str, str],
) -> None:
    only_the_tiny_engine(monkeypatch)
    for name, value in {"_CLOSE_TIMEOUT_S": 1.0, "NUM_STREAMS": BUSY + 4, "_LONG": 500}.items():
        monkeypatch.setattr(f"build_engine.selfcheck.load.{name}", value)
    outcome = selfcheck_host.run(**environment)
    assert outcome.status == 2
    assert "1 check(s) failed" in outcome.shown
    found = {step: outcome[f"1 GPU: {step}"] for step in STEPS}
    assert {step for step, (status, _) in found.items() if status == "failed"} == failed.keys()
    for step, text in failed.items():
        assert text in found[step][1]
    assert outcome["2 GPUs: convert"] == ("not known", "nvidia-smi shows 1 GPU; this takes 2")


def test_what_depends_on_a_failure_is_not_known(selfcheck_host: SelfCheckHost, monkeypatch: pytest.MonkeyPatch) -> None:
    only_the_tiny_engine(monkeypatch)
    outcome = selfcheck_host.run(DOUBLE_FAULT="unquantized")
    found = {step: outcome[f"1 GPU: {step}"] for step in STEPS}
    assert found["convert"][0] == "passed"
    assert found["build"] == ("not known", "verify failed")
    assert found["publish"] == ("not known", "verify failed")
    assert found["serve"] == found["little KV cache"] == ("not known", "the tiny engine was not built")


def test_another_release_fails_by_its_version(selfcheck_host: SelfCheckHost) -> None:
    selfcheck_host.host.install_tensorrt_llm("1.3.0")
    outcome = selfcheck_host.run()
    assert outcome["versions: NVIDIA's Python"][1].startswith("tensorrt_llm 1.3.0; accepted: 1.2.1")
    assert outcome["sha256: builder.py"][0] == "failed"
    assert outcome["1 GPU: convert"][1].startswith("tensorrt_llm: 1.3.0; accepted: 1.2.1")


def test_weights_in_another_order_fail(selfcheck_host: SelfCheckHost) -> None:
    selfcheck_host.install(sm="80")
    outcome = selfcheck_host.run(DOUBLE_FAULT="disk_full")
    status, text = outcome["weight order: NVIDIA's, attention, SM 90"]
    assert status == "failed"
    assert "bytes differ from preprocess_weights_for_mixed_gemm's" in text
    assert outcome["weight order: NVIDIA's, attention, SM 80"][0] == "passed"


def test_an_option_that_a_program_lacks_fails(selfcheck_host: SelfCheckHost) -> None:
    builder = selfcheck_host.host.bin / "trtllm-build"
    builder.unlink()
    builder.write_text("#!/bin/sh\necho usage: --checkpoint_dir --output_dir\n")
    builder.chmod(0o755)
    status, text = selfcheck_host.run(DOUBLE_FAULT="disk_full")["options: trtllm-build"]
    assert status == "failed"
    assert text.startswith("not known: --gemm_plugin, --input_timing_cache, --kv_cache_type, ")


def test_digests_are_compared_once_they_are_on_record(
    selfcheck_host: SelfCheckHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = "d61dfb7f8f3248e4982702ff9caac16e503af12d34dd1cc7889db2808d81bd4d"
    monkeypatch.setattr(installed, "KNOWN_DIGESTS", {"layers/moe.py": same, "builder.py": "0" * 64})
    outcome = selfcheck_host.run(DOUBLE_FAULT="disk_full")
    assert outcome["sha256: layers/moe.py"][0] == "passed"
    assert outcome["sha256: builder.py"][0] == "failed"
    assert outcome["sha256: plugin/plugin.py"] == ("not known", f"{same}; that of release 1.2.1 is not on record")


def test_without_a_gpu_the_rest_is_checked(selfcheck_host: SelfCheckHost) -> None:
    outcome = selfcheck_host.run(DOUBLE_GPUS="")
    assert outcome.status == 0
    assert outcome["GPUs"] == ("not known", "nvidia-smi shows none")
    assert outcome["1 GPU: convert"] == outcome["2 GPUs: serve"] == ("not known", "nvidia-smi shows no GPU")
    assert re.fullmatch(
        r"all 14 that are used \(\d\.\d s, \d+ MiB of host memory\)", outcome["options: trtllm-build"][1]
    )


def test_a_machine_without_nvidias_programs_is_told_where_to_run(selfcheck_host: SelfCheckHost) -> None:
    for program in selfcheck_host.host.bin.iterdir():
        program.unlink()
    outcome = selfcheck_host.run("--converter", "none.py", "--backend", "none", PYTHONPATH="")
    assert outcome.status == 0
    here = "tensorrt_llm is not installed here; run in the image: make images"
    assert outcome["versions: NVIDIA's Python"] == ("not known", here)
    assert outcome["options: trtllm-build"] == ("not known", "trtllm-build is not installed here")
    passed = {line[11:].split("  ")[0] for line in outcome.report.splitlines() if line.startswith("passed")}
    assert passed >= {"versions: build step", "weight order: recorded", "tiny checkpoint"}
