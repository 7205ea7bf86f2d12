"""What `doctor` reports about hosts given as facts, and about one made of doubles."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from build_engine.__main__ import main
from build_engine.mixtral import to_mixtral_config
from build_engine.model_config import Limits
from build_engine.tensorrt_llm.commands import Toolchain
from build_engine.tensorrt_llm.doctor import Finding, Need, examine
from build_engine.tensorrt_llm.host import (
    HostFacts,
    InstalledGpu,
    parse_cuda,
    parse_driver,
    parse_gpus,
    parse_memory,
    visible_gpus,
)
from tests.build_engine.tensorrt_llm.conftest import H100, GpuHost
from tests.build_engine.tensorrt_llm.test_plan import MIXTRAL_8X7B

GIB = 2**30
TOOLS = Toolchain()
CONVERTER_HELP = (
    "  --model_dir MODEL_DIR\n  --output_dir --dtype {auto,float16} --tp_size --moe_tp_size --workers WORKERS\n"
)
BUILD_HELP = """
  --checkpoint_dir --output_dir --gemm_plugin --kv_cache_type KV_CACHE_TYPE --use_paged_context_fmha {enable,disable}
  --multiple_profiles --max_batch_size --max_num_tokens --max_seq_len MAX_SEQ_LEN, --max_decoder_seq_len MAX_SEQ_LEN
  --max_beam_width --workers --input_timing_cache --output_timing_cache [--monitor_memory]
"""


def gpu(index: int = 0, sm: int = 90, free_gib: float = 79) -> InstalledGpu:
    return InstalledGpu(index=index, name="NVIDIA H100", sm=sm, total_mib=81559, free_mib=int(free_gib * 1024))


GOOD = HostFacts(
    gpus=(gpu(0), gpu(1)),
    driver="590.44.01",
    cuda=(13, 1),
    host_free_bytes=128 * GIB,
    disk_free_bytes=200 * GIB,
    shm_bytes=4 * GIB,
    tensorrt_llm="1.2.1",
    loader_source="postprocess_awq",
    converter_source="use_autoawq",
    converter_help=CONVERTER_HELP,
    build_help=BUILD_HELP,
    programs={"tritonserver": True, "mpirun": True},
    has_backend=True,
    environment={},
)


def need(**changes: Any) -> Need:
    """Mixtral-8x7B for one GPU."""
    limits = Limits(max_batch_size=256, max_seq_len=32768, max_num_tokens=8192)
    base = Need(
        hf_checkpoint=Path("/models/mixtral-instruct-awq"),
        config=to_mixtral_config(MIXTRAL_8X7B),
        limits=limits,
        tp_size=1,
        disk_bytes=50 * GIB,
        host_bytes={"converting": 51 * GIB, "building": 75 * GIB},
    )
    return replace(base, **changes)


def test_a_good_host_has_no_other_findings_than_ok() -> None:
    findings = [*examine(GOOD, need(), TOOLS), *examine(GOOD, need(tp_size=2), TOOLS)]
    assert [str(finding) for finding in findings if finding.level != "ok"] == []
    assert all(finding.remedy == "" for finding in findings)


@pytest.mark.parametrize(
    ("facts", "wanted", "level", "subject", "text", "remedy"),
    [
        ({"gpus": ()}, {}, "failure", "GPUs", "0 seen; tensor_parallel_size is 1", "--gpus all"),
        ({}, {"tp_size": 4}, "failure", "GPUs", "2 seen; tensor_parallel_size is 4", "tensor_parallel_size"),
        ({"gpus": (gpu(sm=100),)}, {}, "failure", "GPU 0", "refuses 4-bit weights on Blackwell", "SM 80, 86, 89 or 90"),
        ({"gpus": (gpu(sm=120),)}, {}, "failure", "GPU 0", "are untested on it", "SM 80, 86, 89 or 90"),
        ({"gpus": (gpu(sm=75),)}, {}, "failure", "GPU 0", "older than Ampere", "SM 80, 86, 89 or 90"),
        ({"gpus": (gpu(0), gpu(1, sm=80))}, {"tp_size": 2}, "failure", "GPUs", "different architectures", "equal GPUs"),
        ({"gpus": (gpu(free_gib=20),)}, {}, "failure", "GPU 0 memory", "20.0 of 79.6 GiB free", "stop what else uses"),
        ({"gpus": (gpu(free_gib=28),)}, {}, "warning", "GPU 0 memory", "is below max_seq_len", "lower max_seq_len"),
        ({"cuda": None}, {}, "failure", "driver", "nvidia-smi does not answer", "--gpus all"),
        ({"cuda": (12, 9)}, {}, "failure", "driver", "CUDA 12.9; accepted: CUDA 13", "install driver 590"),
        ({"cuda": (13, 0)}, {}, "warning", "driver", "was built with 13.1", "prefer driver 590"),
        ({"host_free_bytes": 40 * GIB}, {}, "failure", "host memory", "40 GiB free", "add memory or swap"),
        ({"host_free_bytes": 64 * GIB}, {}, "failure", "host memory", "building takes about 75 GiB", "add memory"),
        ({"host_free_bytes": 96 * GIB}, {}, "warning", "host memory", "converting takes about 51 GiB", "close other"),
        ({"disk_free_bytes": 49 * GIB}, {}, "failure", "disk", "49 GiB free; this build writes 50 GiB", "--work-dir"),
        ({"shm_bytes": 64 * 2**20}, {"tp_size": 2}, "failure", "/dev/shm", "0.1 GiB; NCCL hangs", "--shm-size 2g"),
        ({"tensorrt_llm": None}, {}, "failure", "tensorrt_llm", "not installed", "26.07-trtllm-python-py3"),
        ({"tensorrt_llm": "1.3.0rc1"}, {}, "failure", "tensorrt_llm", "1.3.0rc1; accepted: 1.2.1", "26.07"),
        ({"loader_source": "def postprocess"}, {}, "failure", "AutoAWQ", "expert loader", "26.07"),
        ({"converter_source": "gptq"}, {}, "failure", "AutoAWQ", "the converter does not know it", "26.07"),
        ({"converter_help": ""}, {}, "failure", "converter", "--help gives no answer", "26.07"),
        (
            {"converter_help": CONVERTER_HELP.replace("--moe_tp_size ", "")},
            {},
            "failure",
            "converter",
            "does not know --moe_tp_size",
            "26.07",
        ),
        (
            {"build_help": BUILD_HELP.replace("--multiple_profiles ", "")},
            {},
            "failure",
            "builder",
            "trtllm-build does not know --multiple_profiles",
            "26.07",
        ),
        ({"has_backend": False}, {}, "failure", "Triton backend", "newer images serve no engines", "26.07"),
        ({"programs": {"tritonserver": False}}, {}, "failure", "tritonserver", "not found", "26.07"),
        ({"programs": {"mpirun": False}}, {"tp_size": 2}, "failure", "mpirun", "not found", "26.07"),
        ({}, {"hf_checkpoint": Path("/m/Llava-x")}, "failure", "checkpoint", "'llava'", "rename or link"),
        (
            {"environment": {"TRTLLM_DISABLE_UNIFIED_CONVERTER": "1"}},
            {},
            "failure",
            "environment",
            "only the unified loader knows AutoAWQ",
            "unset it",
        ),
    ],
)
def test_each_problem_has_its_line_and_its_remedy(
    facts: dict[str, Any], wanted: dict[str, Any], level: str, subject: str, text: str, remedy: str
) -> None:
    findings = examine(replace(GOOD, **facts), need(**wanted), TOOLS)
    problems = [finding for finding in findings if finding.level != "ok"]
    assert [(finding.level, finding.subject) for finding in problems] == [(level, subject)]
    assert text in problems[0].text
    assert remedy in problems[0].remedy


def test_host_memory_is_that_of_the_steps_that_are_left() -> None:
    facts = replace(GOOD, host_free_bytes=60 * GIB)
    for host_bytes, level, text in (
        ({"converting": 51 * GIB, "building": 75 * GIB}, "failure", "51 GiB, building takes about 75 GiB"),
        ({"building": 75 * GIB}, "failure", "60 GiB free; building takes about 75 GiB"),
        ({}, "ok", "60 GiB free; nothing is left to convert or build"),
    ):
        (finding,) = [
            each for each in examine(facts, need(host_bytes=host_bytes), TOOLS) if each.subject == "host memory"
        ]
        assert finding.level == level
        assert text in finding.text


@pytest.mark.parametrize(
    "version", ["1.2.1", "1.2.1.2604", "1.2.1.0.1", "1.2.1.post1", "1.2.1+cu130", "1.2.1.1+local.2"]
)
def test_builds_of_one_release_are_accepted(version: str) -> None:
    findings = examine(replace(GOOD, tensorrt_llm=version), need(), TOOLS)
    assert [str(finding) for finding in findings if finding.level != "ok"] == []


@pytest.mark.parametrize(
    "version",
    [
        "1.2.0",
        "1.2",
        "1.2.10",
        "1.2.1rc3",
        "1.2.1.dev20260101",
        "1.2.1a",
        "1.2.1+",
        "1.2.1 ",
        "11.2.1",
        "1.3.0",
        "1.2.2",
    ],
)
def test_any_other_release_is_refused_with_what_was_found(version: str) -> None:
    (finding,) = [each for each in examine(replace(GOOD, tensorrt_llm=version), need(), TOOLS) if each.level != "ok"]
    assert (finding.level, finding.subject) == ("failure", "tensorrt_llm")
    assert finding.text == f"{version}; accepted: 1.2.1"


def test_one_gpu_needs_neither_mpirun_nor_shared_memory() -> None:
    facts = replace(GOOD, programs={"tritonserver": True, "mpirun": False}, shm_bytes=64 * 2**20)
    assert {finding.level for finding in examine(facts, need(), TOOLS)} == {"ok"}


def test_a_finding_is_one_line() -> None:
    assert str(Finding("failure", "disk", "full", "free space")) == "failure  disk            full; free space"
    assert str(Finding("ok", "driver", "590")) == "ok       driver          590"


def test_gpus_of_nvidia_smi() -> None:
    csv = "0, GPU-4a, NVIDIA H100 80GB HBM3, 9.0, 81559, 80994\n1, GPU-4b, NVIDIA L40S, 8.9, 46068, 45000\n"
    assert parse_gpus(csv) == (
        InstalledGpu(index=0, name="NVIDIA H100 80GB HBM3", sm=90, total_mib=81559, free_mib=80994),
        InstalledGpu(index=1, name="NVIDIA L40S", sm=89, total_mib=46068, free_mib=45000),
    )
    assert parse_gpus("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.") == ()
    assert parse_gpus("0, GPU-5c, NVIDIA B200, 10.0, 183359, 182000")[0].sm == 100


@pytest.mark.parametrize(
    ("devices", "seen"),
    [
        (None, "abc"),
        ("1", "b"),
        ("2,0", "ca"),
        (" 2 , GPU-4b ", "cb"),
        ("GPU-5", "c"),
        ("GPU-4", ""),  # two of them
        ("1,9,0", "b"),
        ("-1", ""),
        ("", ""),
        ("MIG-4a", ""),
    ],
)
def test_gpus_that_programs_see(devices: str | None, seen: str) -> None:
    """As CUDA reads CUDA_VISIBLE_DEVICES: what comes after a name without a GPU is not seen."""
    lines = "0, GPU-4a, a\n1, GPU-4b, b\n2, GPU-5c, c"
    assert "".join(line[-1] for line in visible_gpus(lines, devices).splitlines()) == seen


@pytest.mark.parametrize(
    ("overview", "driver", "cuda"),
    [
        ("| NVIDIA-SMI 590.44.01  Driver Version: 590.44.01  CUDA Version: 13.1     |", "590.44.01", (13, 1)),
        ("| NVIDIA-SMI 610.43.02  KMD Version: 610.43.02     CUDA UMD Version: 13.3 |", "610.43.02", (13, 3)),
        ("Driver Version    : 575.51.03\nCUDA Version      : 12.9", "575.51.03", (12, 9)),
        ("command not found", "", None),
    ],
)
def test_driver_and_cuda_of_nvidia_smi(overview: str, driver: str, cuda: tuple[int, int] | None) -> None:
    assert (parse_driver(overview), parse_cuda(overview)) == (driver, cuda)


MEMINFO = "MemTotal:  16000 kB\nMemAvailable:   8000 kB\nSwapFree:  2000 kB\n"


@pytest.mark.parametrize(
    ("cgroup_max", "cgroup_current", "kib"),
    [("", "", 10000), ("max\n", "500\n", 10000), (f"{6000 * 1024}\n", f"{1000 * 1024}\n", 5000)],
)
def test_host_memory_is_the_containers_where_that_is_less(cgroup_max: str, cgroup_current: str, kib: int) -> None:
    assert parse_memory(MEMINFO, cgroup_max, cgroup_current) == kib * 1024


def test_doctor_command_on_a_host_of_doubles(host: GpuHost, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(host.command("doctor")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "ok       GPU 0           NVIDIA H100 80GB HBM3, SM 90" in lines
    assert "ok       driver          590.44.01, CUDA 13.1" in lines
    assert "ok       AutoAWQ         known to converter and loader" in lines
    assert any("convert_checkpoint.py knows the 6 options" in line for line in lines)
    assert any("trtllm-build knows the 14 options" in line for line in lines)


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"DOUBLE_GPUS": ""}, "failure  GPUs            0 seen"),
        ({"DOUBLE_GPUS": H100.replace("9.0", "10.0")}, "failure  GPU 0           NVIDIA H100 80GB HBM3, SM 100"),
        ({"DOUBLE_CUDA": "12.9"}, "failure  driver          590.44.01, CUDA 12.9"),
    ],
)
def test_doctor_command_fails_where_a_build_would(
    host: GpuHost,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environment: dict[str, str],
    line: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(host.command("doctor")) == 2
    said = capsys.readouterr()
    assert line in said.out
    assert "this host cannot build the engine" in said.err
    assert not host.work_dir.exists()


def test_doctor_command_without_the_package_and_the_programs(
    host: GpuHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PYTHONPATH")
    (host.bin / "trtllm-build").unlink()
    assert main(host.command("doctor")) == 2
    said = capsys.readouterr().out
    assert "failure  tensorrt_llm    not installed" in said
    assert "failure  builder         trtllm-build --help gives no answer" in said
