"""The whole build with doubles of NVIDIA's programs: what is published, what stops it, and how it continues."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from build_engine.__main__ import main
from tests.build_engine.tensorrt_llm.conftest import A100, GpuHost, contents

STEPS = ("convert", "verify", "build")
FULL_H100 = "NVIDIA H100 80GB HBM3:9.0:81559:900"
"""A GPU whose memory a server holds."""


@pytest.mark.parametrize("tp_size", [1, 2])
def test_the_engine_is_published_whole(host: GpuHost, tp_size: int) -> None:
    host.configure(tensor_parallel_size=tp_size)
    assert host.build() == 0
    published = host.published()
    assert set(published) == {
        "config.json",
        *(f"rank{rank}.engine" for rank in range(tp_size)),
        "xgrammar_tokenizer_info.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "manifest.json",
    }
    manifest = json.loads(published["manifest.json"])
    assert manifest["target"] == "tensorrt_llm"
    assert manifest["checkpoint"]["path"] == str(host.checkpoint)
    assert manifest["limits"] == {"max_batch_size": 256, "max_seq_len": 512, "max_num_tokens": 8192}
    assert (manifest["tensor_parallel_size"], manifest["sm"]) == (tp_size, 90)
    assert manifest["versions"] == {"tensorrt_llm": "1.2.1"}
    for step in ("convert", "build"):
        assert manifest["usage"][step].keys() == {"seconds", "host_mib", "gpu_mib"}
        assert manifest["usage"][step]["host_mib"] > 10
    assert manifest["files"].keys() == published.keys() - {"manifest.json"}
    engine = json.loads(published["config.json"])["build_config"]
    assert (engine["max_batch_size"], engine["max_seq_len"], engine["max_num_tokens"]) == (256, 512, 8192)
    assert not any((host.work_dir / step).exists() for step in STEPS)


def test_a_shard_that_is_replaced_while_building_is_not_published(
    host: GpuHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host.checkpoint = Path(shutil.copytree(host.checkpoint, host.directory / "replaced"))
    shard = min(host.checkpoint.glob("*.safetensors"))

    def replace_the_shard(*_: Any) -> None:
        other = Path(shutil.copy(shard, host.directory / "other"))
        with other.open("ab+") as file:
            file.truncate(file.tell() - 1)
            file.write(b"x")
        other.replace(shard)

    with monkeypatch.context() as patched:
        patched.setattr("build_engine.tensorrt_llm.build.smoke", replace_the_shard)
        assert host.build() == 2
    assert f"build_engine: {shard.name}: changed during the build" in capsys.readouterr().err
    assert not host.engine_dir.exists()
    assert host.build() == 0
    assert "convert: done already" not in capsys.readouterr().err


def test_check_reads_the_whole_engine(host: GpuHost, capsys: pytest.CaptureFixture[str]) -> None:
    assert host.build() == 0
    command = host.command("build", "--target", "tensorrt_llm", "--check")
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().out.startswith(f"unchanged: {host.engine_dir} and its checkpoint, ")
    with (host.engine_dir / "rank0.engine").open("ab") as engine:
        engine.write(b"x")
    assert main(command) == 2
    assert f"{host.engine_dir}/rank0.engine: has other contents" in capsys.readouterr().err


def test_config_pbtxt_is_read_once(host: GpuHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """So all steps of a build see the same version of it."""
    opened: list[Path] = []
    open_path = Path.open

    def watched(path: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(path)
        return open_path(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", watched)
    assert host.build() == 0
    assert opened.count(host.model_dir / "config.pbtxt") == 1


def test_time_and_peak_memory_of_the_tools_are_kept_with_their_logs(host: GpuHost) -> None:
    assert host.build() == 0
    for step in ("convert", "build"):
        *_, usage = (host.work_dir / f"{step}.log").read_text().splitlines()
        # 81559 - 80994 MiB are in use on the doubles' GPUs.
        found = re.fullmatch(rf"{step}: \d+ s, at most (\d+) MiB of host and 565 MiB of GPU memory", usage)
        assert found, usage
        assert int(found[1]) > 10


def test_what_a_build_took_is_not_compared(host: GpuHost, capsys: pytest.CaptureFixture[str]) -> None:
    assert host.build() == 0
    manifest_file = host.engine_dir / "manifest.json"
    manifest = json.loads(manifest_file.read_text())
    manifest["usage"]["build"]["host_mib"] += 1000
    manifest_file.write_text(json.dumps(manifest))
    capsys.readouterr()
    assert host.build() == 0
    assert "nothing changed" in capsys.readouterr().out
    del manifest["usage"], manifest["built"]  # as an earlier version of the build left it
    manifest_file.write_text(json.dumps(manifest))
    assert host.build() == 0
    assert "nothing changed" in capsys.readouterr().out


def test_an_unknown_field_of_a_newer_release_is_a_warning(
    host: GpuHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOUBLE_FAULT", "newer_release")
    assert host.build() == 0
    said = capsys.readouterr().err.splitlines()
    ignored = "new_option is None; this build does not know the field and ignores it"
    assert f"verify: warning: config.json: {ignored}" in said
    assert f"build: warning: engine config.json: pretrained_config.{ignored}" in said
    assert f"build: warning: engine config.json: build_config.{ignored}" in said


def test_tokenizer_info_has_every_token_in_the_order_of_ids(host: GpuHost) -> None:
    assert host.build() == 0
    info = json.loads(host.published()["xgrammar_tokenizer_info.json"])
    assert list(info) == ["encoded_vocab", "tokenizer_str", "stop_token_ids"]
    # No grammar may generate a special token as text, so they have none.
    assert info["encoded_vocab"][:4] == ["", "", "", "<0x00>"]
    assert len(info["encoded_vocab"]) == 32000
    assert json.loads(info["tokenizer_str"])["model"]["type"] == "BPE"
    assert info["stop_token_ids"] == [2]


def test_a_second_build_changes_nothing(host: GpuHost, capsys: pytest.CaptureFixture[str]) -> None:
    assert host.build() == 0
    before = host.published()
    capsys.readouterr()
    assert host.build() == 0
    said = capsys.readouterr()
    assert "nothing changed" in said.out
    assert "convert" not in said.err
    assert host.published() == before


def test_other_limits_convert_nothing_anew_but_build_again(
    host: GpuHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOUBLE_FAULT", "builder_out_of_memory")
    assert host.build() == 2
    monkeypatch.delenv("DOUBLE_FAULT")
    capsys.readouterr()
    host.configure(max_num_tokens=4096)
    assert host.build() == 0
    said = capsys.readouterr().err
    assert "convert: done already" in said
    assert "verify: done already" in said
    assert "--max_num_tokens 4096" in said


@pytest.mark.parametrize(
    ("fault", "messages"),
    [
        ("unquantized", ["the converter dropped the quantisation silently"]),
        ("converter_killed", ["was killed by SIGKILL", "host memory ran out"]),
        ("disk_full", ["ended with status 1: the disk is full; try: free space", "its log is"]),
        ("builder_out_of_memory", ["GPU memory ran out", "lower max_num_tokens"]),
        ("other_limits", ["build_config.max_batch_size is 8; accepted: 256"]),
        ("other_version", ["engine config.json: version is '1.1.0'; accepted: '1.2.1'"]),
        ("paged_context_off", ["build_config.plugin_config.use_paged_context_fmha is False; accepted: True"]),
        ("rank_without_engine", ["rank0.engine: missing or empty"]),
        ("version_mismatch", ["smoke: tritonserver ended with status 1", "build and serve in the same image"]),
        ("token_out_of_range", ["the engine generated token 32000; accepted: 0 to 31999"]),
        ("not_finite", ["the engine gave a log probability of nan; accepted: finite"]),
        ("not_repeatable", ["the engine answers a greedy request in two ways", "token 10", "-1.5 and -3.0"]),
    ],
)
def test_a_failure_is_explained_and_publishes_nothing(
    host: GpuHost,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: str,
    messages: list[str],
) -> None:
    monkeypatch.setenv("DOUBLE_FAULT", fault)
    assert host.build() == 2
    said = capsys.readouterr().err
    for message in messages:
        assert message in said.split("build_engine: ")[-1]
    assert not host.engine_dir.exists()
    assert not host.engine_dir.with_name(".engine.partial").exists()


def test_greedy_answers_may_part_at_a_near_tie(
    host: GpuHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second prompt comes from the KV cache, so other kernels run, which round differently."""
    monkeypatch.setenv("DOUBLE_FAULT", "near_tie")
    assert host.build() == 0
    assert "smoke: 64 tokens, twice alike for 10, " in capsys.readouterr().err


def test_the_last_lines_of_a_tool_are_printed_before_the_message(
    host: GpuHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOUBLE_FAULT", "version_mismatch")
    assert host.build() == 2
    *_, last_line, message = capsys.readouterr().err.splitlines()
    assert last_line.startswith("  [TensorRT-LLM][ERROR] Serialization assertion")
    assert message.startswith("build_engine: smoke: tritonserver ended with status 1: the engine and the library")


def test_a_failed_build_leaves_the_engine_in_place_as_it_was(host: GpuHost, monkeypatch: pytest.MonkeyPatch) -> None:
    assert host.build() == 0
    before = host.published()
    host.configure(max_seq_len=256)
    monkeypatch.setenv("DOUBLE_FAULT", "not_repeatable")
    assert host.build() == 2
    assert host.published() == before


def test_a_conversion_that_did_not_pass_is_done_again(
    host: GpuHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOUBLE_FAULT", "unquantized")
    assert host.build() == 2
    assert (host.work_dir / "convert" / "config.json").exists()  # evidence
    monkeypatch.delenv("DOUBLE_FAULT")
    capsys.readouterr()
    assert host.build() == 0
    assert "convert: done already" not in capsys.readouterr().err


def test_weights_laid_out_for_another_gpu_are_not_built(
    host: GpuHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOUBLE_GPUS", A100)
    monkeypatch.setenv("DOUBLE_FAULT", "builder_out_of_memory")
    assert host.build() == 2
    monkeypatch.setenv("DOUBLE_GPUS", host.environment["DOUBLE_GPUS"])
    monkeypatch.delenv("DOUBLE_FAULT")
    capsys.readouterr()
    assert host.build() == 2
    said = capsys.readouterr().err
    assert "converted on a GPU of SM 80" in said
    assert "this GPU's (SM 90); remove that directory to convert here" in said
    assert not host.engine_dir.exists()


def test_preflight_stops_a_build_before_it_costs_time(
    host: GpuHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host.install_tensorrt_llm("1.3.0")
    assert host.build() == 2
    said = capsys.readouterr().err
    assert "tensorrt_llm: 1.3.0; accepted: 1.2.1; run in nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3" in said
    assert "convert" not in said


MIDDLE = {
    "convert": ("convert | half-way", "converter_hangs"),
    "verify": ("verify: comparing", ""),
    "build": ("build | half-way", "builder_hangs"),
    "smoke": ("smoke: starting Triton", "server_hangs"),
}
"""The line that a build prints in the middle of each step, and the fault that keeps it there."""


def start(host: GpuHost, fault: str = "") -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "build_engine", *host.command("build", "--target", "tensorrt_llm")]
    environment = {**os.environ, **host.environment, "DOUBLE_FAULT": fault}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=host.directory
    )


def wait_for(build: "subprocess.Popen[str]", marker: str) -> None:
    assert build.stderr is not None
    seen = []
    for line in build.stderr:
        seen.append(line)
        if marker in line:
            return
    pytest.fail(f"no {marker!r} in {''.join(seen)}")


def end_tools(version_dir: Path) -> None:
    """End exactly the tools that a killed build left running: those that hold the lock they inherited."""
    lock = version_dir.resolve()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(descriptor.resolve() == lock for descriptor in (process / "fd").iterdir()):
                os.kill(int(process.name), signal.SIGKILL)
        except (OSError, ProcessLookupError):
            continue


def engine_of(host: GpuHost) -> dict[str, bytes]:
    """The published files, without what differs between equal engines: the path of the timing cache, usage and time.

    The path is in config.json, so that file's hash differs too.
    """
    here = str(host.directory).encode()
    files = {name: content.replace(here, b"HOST") for name, content in contents(host.engine_dir).items()}
    manifest = json.loads(files["manifest.json"])
    del manifest["usage"], manifest["built"], manifest["files"]["config.json"]
    return {**files, "manifest.json": json.dumps(manifest).encode()}


@pytest.mark.parametrize("tp_size", [1, 2])
def test_a_build_killed_at_any_step_goes_on_and_publishes_the_same_bytes(
    host: GpuHost, tmp_path: Path, splittable_checkpoint: Path, tp_size: int
) -> None:
    uninterrupted = GpuHost(tmp_path / "calm", splittable_checkpoint)
    for each in (host, uninterrupted):
        each.configure(tensor_parallel_size=tp_size)
    assert uninterrupted.build() == 0
    for step, (marker, fault) in MIDDLE.items():
        with start(host, fault) as build:
            wait_for(build, marker)
            build.kill()
            end_tools(host.engine_dir.parent)
        assert build.returncode == -signal.SIGKILL, step
        assert not host.engine_dir.exists(), step
    with start(host) as build:
        assert build.stderr is not None
        said = build.stderr.read()
    assert build.returncode == 0, said
    assert [step for step in STEPS if f"{step}: done already" in said] == list(STEPS)
    assert engine_of(host) == engine_of(uninterrupted)
    assert {path.name for path in host.engine_dir.parent.iterdir()} == {"engine", "engines", ".engine.work"}


@pytest.mark.parametrize("step", ["convert", "build", "smoke"])
def test_an_interrupted_build_takes_its_tools_with_it(host: GpuHost, step: str) -> None:
    marker, fault = MIDDLE[step]
    with start(host, fault) as build:
        wait_for(build, marker)
        build.send_signal(signal.SIGINT)
        assert build.stderr is not None
        said = build.stderr.read()
    assert build.returncode == 2
    assert "interrupted by SIGINT; nothing was published" in said
    assert not host.engine_dir.exists()
    # The lock is free: the next build runs.
    assert host.build() == 0


def test_two_builds_at_once_are_refused(host: GpuHost, capsys: pytest.CaptureFixture[str]) -> None:
    with start(host, "converter_hangs") as build:
        wait_for(build, MIDDLE["convert"][0])
        assert host.build() == 2
        assert "another build is running" in capsys.readouterr().err
        build.terminate()


def test_a_disk_that_fills_while_publishing(
    host: GpuHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit on the size of files stands for the full disk; only publishing is left to do."""
    monkeypatch.setenv("DOUBLE_FAULT", "version_mismatch")
    assert host.build() == 2
    monkeypatch.delenv("DOUBLE_FAULT")
    capsys.readouterr()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        assert host.build() == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot be written (File too large)" in capsys.readouterr().err
    assert {path.name for path in host.engine_dir.parent.iterdir()} == {".engine.work"}
    assert host.build() == 0


@pytest.fixture
def changeable(host: GpuHost) -> GpuHost:
    """A host with a published engine, whose checkpoint the test may change."""
    host.checkpoint = Path(shutil.copytree(host.checkpoint, host.directory / "changeable"))
    assert host.build() == 0
    return host


def test_a_new_chat_template_is_published_while_a_server_holds_the_gpu(
    changeable: GpuHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = changeable.published()
    usage = json.loads(before["manifest.json"])["usage"]
    monkeypatch.setenv("DOUBLE_GPUS", FULL_H100)
    capsys.readouterr()
    assert changeable.build() == 0
    assert capsys.readouterr().out.startswith("nothing changed")
    (changeable.checkpoint / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert changeable.build() == 0
    printed = capsys.readouterr()
    assert printed.out.endswith("tokenizer files or chat template are new, the engine is not\n")
    assert not [step for step in (*STEPS, "smoke") if f"{step}:" in printed.err]
    after = changeable.published()
    assert after["chat_template.jinja"] == b"{{ messages[0].content }}"
    manifest = json.loads(after["manifest.json"])
    assert manifest["usage"] == usage
    assert manifest["files"].keys() == after.keys() - {"manifest.json"}
    assert {name: after[name] for name in before if name != "manifest.json"} == {
        name: content for name, content in before.items() if name != "manifest.json"
    }


def test_another_tokenizer_is_tried_on_the_gpu_but_not_built_for(
    changeable: GpuHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guided answers are made of its vocabulary, so the smoke test has to have seen it."""
    tokenizer = changeable.checkpoint / "tokenizer.json"
    content = json.loads(tokenizer.read_text())
    content["truncation"] = {"direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0}
    tokenizer.write_text(json.dumps(content))
    before = changeable.published()
    monkeypatch.setenv("DOUBLE_GPUS", FULL_H100)
    capsys.readouterr()
    assert changeable.build() == 2
    assert "GPU 0 memory" in capsys.readouterr().err
    assert changeable.published() == before
    monkeypatch.setenv("DOUBLE_GPUS", changeable.environment["DOUBLE_GPUS"])
    assert changeable.build() == 0
    printed = capsys.readouterr()
    assert printed.out.endswith("tokenizer files or chat template are new, the engine is not\n")
    assert "smoke: " in printed.err
    assert not [step for step in STEPS if f"{step}:" in printed.err]
    assert changeable.published()["tokenizer.json"] == tokenizer.read_bytes()
    assert changeable.published()["rank0.engine"] == before["rank0.engine"]


def test_a_template_that_changes_during_a_build_does_not_repeat_its_steps(
    host: GpuHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host.checkpoint = Path(shutil.copytree(host.checkpoint, host.directory / "changeable"))
    monkeypatch.setenv("DOUBLE_FAULT", "builder_out_of_memory")
    assert host.build() == 2
    monkeypatch.delenv("DOUBLE_FAULT")
    (host.checkpoint / "chat_template.jinja").write_text("{{ messages[0].content }}")
    capsys.readouterr()
    assert host.build() == 0
    assert "convert: done already" in capsys.readouterr().err


def test_a_checkpoint_without_a_chat_template_is_refused_before_the_conversion(
    host: GpuHost, capsys: pytest.CaptureFixture[str]
) -> None:
    host.checkpoint = Path(shutil.copytree(host.checkpoint, host.directory / "bare"))
    config = host.checkpoint / "tokenizer_config.json"
    fields = json.loads(config.read_text())
    del fields["chat_template"]
    config.write_text(json.dumps(fields))
    assert host.build() == 2
    said = capsys.readouterr().err
    assert "no chat template; accepted: " in said
    assert "convert" not in said
