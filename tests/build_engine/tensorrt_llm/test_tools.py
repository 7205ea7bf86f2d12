"""The commands for NVIDIA's tools, the explanations of their failures, and how Triton is started."""

import fcntl
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from build_engine.model_config import Limits
from build_engine.tensorrt_llm import subprocess_log
from build_engine.tensorrt_llm.commands import Toolchain, build_command, convert_command, serve_command
from build_engine.tensorrt_llm.host import session_memory_mib
from build_engine.tensorrt_llm.known_failures import known_failure
from build_engine.tensorrt_llm.subprocess_log import Run, end_group, failed, run_tool, start_group

LIMITS = Limits(max_batch_size=256, max_seq_len=32768, max_num_tokens=8192)


def test_converter_gets_no_more_than_the_documented_options() -> None:
    assert convert_command(Toolchain(), Path("/hf"), Path("/out"), 2) == [
        "python3",
        "/app/examples/models/core/llama/convert_checkpoint.py",
        *("--model_dir", "/hf", "--output_dir", "/out", "--dtype", "float16"),
        *("--tp_size", "2", "--moe_tp_size", "2", "--workers", "1"),
    ]


def test_builder_gets_the_limits() -> None:
    assert build_command(Toolchain(), Path("/in"), Path("/out"), Path("/cache"), LIMITS, 4) == [
        "trtllm-build",
        *("--checkpoint_dir", "/in", "--output_dir", "/out", "--gemm_plugin", "auto", "--kv_cache_type", "paged"),
        *("--use_paged_context_fmha", "enable", "--multiple_profiles", "enable"),
        *("--max_batch_size", "256", "--max_num_tokens", "8192", "--max_seq_len", "32768", "--max_beam_width", "1"),
        *("--workers", "4", "--input_timing_cache", "/cache", "--output_timing_cache", "/cache", "--monitor_memory"),
    ]


def test_builder_has_an_engine_gather_its_logits_if_the_config_says_so() -> None:
    limits = replace(LIMITS, gather_generation_logits=True)
    without, gathering = (
        build_command(Toolchain(), Path("/in"), Path("/out"), Path("/cache"), each, 1) for each in (LIMITS, limits)
    )
    assert gathering == [*without, "--gather_generation_logits"]


def test_one_gpu_is_served_without_mpirun() -> None:
    command = serve_command(Toolchain(), Path("/repo"), 1, 8000, 8002)
    assert command[0] == "tritonserver"
    assert {"--model-repository=/repo", "--load-model=tensorrt_llm", "--http-address=127.0.0.1"} <= set(command)


def test_more_gpus_are_served_by_a_process_each() -> None:
    command = serve_command(Toolchain(), Path("/repo"), 4, 8000, 8002)
    mpirun, ranks = command[:4], command[4:]
    assert mpirun == ["mpirun", "--allow-run-as-root", "--bind-to", "none"]
    programs = " ".join(ranks).split(" : ")
    assert len(programs) == 4
    assert all(program.startswith("-n 1 tritonserver ") for program in programs)


@pytest.mark.parametrize(
    ("output", "status", "known"),
    [
        ("OSError: [Errno 28] No space left on device", 1, "the disk is full"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", 1, "GPU memory ran out"),
        ("[E] Error Code 1: Cuda Runtime (out of memory)", 1, "GPU memory ran out"),
        ("Error Code 10: Could not find any implementation for node", 1, "no kernel fitted"),
        ("RuntimeError: INT8/INT4 quantization is not supported on SM>=100.", 1, "for Blackwell"),
        ("NotImplementedError: INT8-GPTQ for MoE", 1, "does not know 4-bit experts"),
        ("The engine plan file is not compatible: expecting library version 10.14.1", 1, "different versions"),
        ("NCCL WARN Cuda failure 2 'out of memory'", 1, "GPU memory ran out"),
        ("NCCL WARN Error while creating shared memory segment", 1, "could not talk to each other"),
        (
            "Error while creating /dev/shm/nccl-a1 (size 9637888), error: No space left on device (28)",
            1,
            "shared memory",
        ),
        (
            "numpy.core._exceptions._ArrayMemoryError: Unable to allocate 3.50 GiB for an array",
            1,
            "host memory ran out",
        ),
        ("terminate called after throwing an instance of 'std::bad_alloc'", -6, "host memory ran out"),
        ("error: unrecognized arguments: --moe_tp_size 2", 2, "another release"),
        ("RuntimeError: CUDA driver version is insufficient for CUDA runtime version", 1, "driver on the host"),
        ("ModuleNotFoundError: No module named 'tensorrt_llm'", 1, "not the image"),
        ("Loading checkpoint shards", -9, "host memory ran out"),
    ],
)
def test_known_failures(output: str, status: int, known: str) -> None:
    failure = known_failure(output, status)
    assert failure is not None
    assert known in failure.known
    assert failure.remedy


def test_a_reason_is_found_above_the_lines_that_are_shown(tmp_path: Path) -> None:
    """After the reason, Triton prints its options and the state of its models, the builder its workers' tracebacks."""
    log = tmp_path / "triton.log"
    reason = "[TensorRT-LLM][ERROR] Serialization assertion stdVersionRead == serializationVersion failed."
    log.write_text("\n".join([reason, *(f"| option {number} |" for number in range(100))]))
    failure = failed("smoke", "tritonserver", 1, log)
    assert "build and serve in the same image" in str(failure)
    assert failure.last_lines == [f"| option {number} |" for number in range(80, 100)]


PARENT_AND_CHILD = """
import subprocess, sys, time
held = bytearray(60 << 20)
held[::4096] = bytes([1]) * len(held[::4096])
if len(sys.argv) == 1:
    child = subprocess.Popen([sys.executable, __file__, "child"], stdout=subprocess.PIPE)
    child.stdout.readline()
    time.sleep(2)
    child.kill()
else:
    print("held", flush=True)
    time.sleep(60)
"""


def test_host_memory_is_that_of_all_processes_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The builder starts a process for each rank. Each of these two holds 60 MiB, beside what Python takes."""
    sampled: list[int] = []

    def sample(session: int) -> int:
        sampled.append(session_memory_mib(session))
        return sampled[-1]

    monkeypatch.setattr(subprocess_log, "session_memory_mib", sample)
    monkeypatch.setattr(subprocess_log, "_MEMORY_SAMPLE_S", 0.0)
    monkeypatch.setattr(subprocess_log, "_POLL_S", 0.1)
    program = tmp_path / "program.py"
    program.write_text(PARENT_AND_CHILD)
    run = Run(
        what="build",
        command=[sys.executable, str(program)],
        log=tmp_path / "log",
        output=tmp_path,
        say=lambda _: None,
        gpu_memory_mib=lambda: 7,
    )
    usage = run_tool(run)
    assert 120 < max(sampled) < 200
    assert usage.host_mib >= max(sampled)
    assert usage.gpu_mib == 7


SLOW_CHILD = """
import os, signal, sys, time
if os.fork() == 0:
    signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.7), os._exit(0)))
    print("ready", flush=True)
time.sleep(60)
"""
DEAF_CHILD = SLOW_CHILD.replace("lambda *_: (time.sleep(0.7), os._exit(0))", "signal.SIG_IGN")


@pytest.mark.parametrize("program", [SLOW_CHILD, DEAF_CHILD], ids=["slow", "deaf"])
def test_the_end_of_a_program_is_that_of_its_last_child(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that outlives its parent holds the build's lock, and Triton's ports."""
    monkeypatch.setattr(subprocess_log, "_TERMINATION_S", 1.5)
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = start_group(
            "test", [sys.executable, "-c", program], output=subprocess.PIPE, keep_open=(lock.fileno(),)
        )
        assert process.stdout is not None
        with process.stdout as output:
            assert output.readline() == b"ready\n"
    end_group(process)
    assert process.returncode == -signal.SIGTERM
    with (tmp_path / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_an_unknown_failure_is_not_explained() -> None:
    assert known_failure("Segmentation fault", 1) is None
