"""`limits` writes the plan's limits into config.pbtxt, and nothing else."""

import difflib
import json
import re
import shutil
from pathlib import Path

import pytest

from build_engine.__main__ import main
from build_engine.model_config import Limits, read_serving_config
from build_engine.tensorrt_llm.write_limits import write_limits
from tests.build_engine.tensorrt_llm.conftest import ROOT, GpuHost
from tests.build_engine.tensorrt_llm.test_plan import MIXTRAL_8X7B

SHIPPED = ROOT / "model_repository" / "tensorrt_llm" / "config.pbtxt"
NUMBERS = {
    "max_batch_size", "preferred_batch_size", "max_queue_size", "max_seq_len", "max_num_tokens", "tensor_parallel_size"
}  # fmt: skip
OTHER = Limits(max_batch_size=32, max_seq_len=16384, max_num_tokens=1024)


@pytest.fixture
def config_pbtxt(tmp_path: Path) -> Path:
    file = tmp_path / "model_repository" / "tensorrt_llm" / "config.pbtxt"
    file.parent.mkdir(parents=True)
    shutil.copyfile(SHIPPED, file)
    return file


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(MIXTRAL_8X7B))
    return file


def limits(checkpoint: Path, config_pbtxt: Path, *options: str) -> int:
    return main(["limits", str(checkpoint), "--model-repository", str(config_pbtxt.parents[1]), *options])


def test_writes_what_the_plan_has(checkpoint: Path, config_pbtxt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert limits(checkpoint, config_pbtxt, "--gpu", "l40s", "--gpus", "2", "--profile", "interactive") == 0
    config = read_serving_config(config_pbtxt)
    assert config.limits == Limits(max_batch_size=128, max_seq_len=32768, max_num_tokens=2048)
    assert config.tensor_parallel_size == 2
    assert config.preferred_batch_sizes == (128,)
    assert config.parsed.dynamic_batching.default_queue_policy.max_queue_size == 128
    assert capsys.readouterr().out == (
        f"{config_pbtxt}: for interactive on 2 l40s: max_batch_size 256 -> 128, preferred_batch_size 256 -> 128,"
        " max_queue_size 256 -> 128, max_num_tokens 8192 -> 2048, tensor_parallel_size 1 -> 2; build the engine again\n"
    )


def test_the_engine_is_built_for_them(host: GpuHost) -> None:
    """The tiny model has 8,192 positions, and room for as many requests as a profile may have."""
    options = ["--gpu", "h100-80g", "--gpus", "2", "--profile", "throughput"]
    assert limits(host.checkpoint, host.model_dir / "config.pbtxt", *options) == 0
    assert host.build() == 0
    manifest = json.loads((host.engine_dir / "manifest.json").read_bytes())
    assert manifest["limits"] == {"max_batch_size": 512, "max_seq_len": 8192, "max_num_tokens": 8192}
    assert manifest["tensor_parallel_size"] == 2


def test_an_engine_gathers_its_logits_if_the_config_says_so(host: GpuHost, capsys: pytest.CaptureFixture[str]) -> None:
    assert host.build() == 0
    config_pbtxt = host.model_dir / "config.pbtxt"
    config_pbtxt.write_text(
        config_pbtxt.read_text().replace(
            'key: "gather_generation_logits", value: { string_value: "false" }',
            'key: "gather_generation_logits", value: { string_value: "true" }',
        )
    )
    capsys.readouterr()
    assert host.build() == 0
    assert "smoke: the logits of 8 tokens give their log probabilities" in capsys.readouterr().err
    manifest = json.loads((host.engine_dir / "manifest.json").read_bytes())
    assert manifest["limits"]["gather_generation_logits"] is True
    built = json.loads((host.engine_dir / "config.json").read_bytes())
    assert built["build_config"]["gather_generation_logits"] is True


def test_the_repository_has_the_limits_for_throughput_on_one_gpu_of_80_gb(
    checkpoint: Path, config_pbtxt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for gpu in ("h100-80g", "a100-80g"):
        assert limits(checkpoint, config_pbtxt, "--gpu", gpu, "--profile", "throughput") == 0
        assert capsys.readouterr().out.startswith(
            f"nothing changed: {config_pbtxt} has the limits for throughput on 1 "
        )
    assert config_pbtxt.read_bytes() == SHIPPED.read_bytes()


def test_changes_six_numbers_and_nothing_else(config_pbtxt: Path) -> None:
    changes = write_limits(config_pbtxt, OTHER, 4)
    assert {change.split()[0] for change in changes} == NUMBERS
    removed, added = [], []
    for line in difflib.ndiff(SHIPPED.read_text().splitlines(), config_pbtxt.read_text().splitlines()):
        if line.startswith("- "):
            removed.append(re.sub(r"\d+", "N", line[2:]))
        elif line.startswith("+ "):
            added.append(re.sub(r"\d+", "N", line[2:]))
    assert removed == added
    assert len(removed) == len(NUMBERS)
    assert not any("#" in line for line in removed)


def test_there_and_back_is_the_same_file(config_pbtxt: Path) -> None:
    write_limits(config_pbtxt, OTHER, 4)
    write_limits(config_pbtxt, read_serving_config(SHIPPED).limits, 1)
    assert config_pbtxt.read_bytes() == SHIPPED.read_bytes()


def test_leaves_no_other_file_and_the_mode(config_pbtxt: Path) -> None:
    config_pbtxt.chmod(0o664)
    write_limits(config_pbtxt, OTHER, 4)
    assert [file.name for file in config_pbtxt.parent.iterdir()] == ["config.pbtxt"]
    assert config_pbtxt.stat().st_mode & 0o777 == 0o664


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("max_queue_size: 256", "timeout_action: REJECT", "max_queue_size was found 0 times; accepted: once,"),
        ("batch_size: [ 256 ]", "batch_size: [ 128, 256 ]", "preferred_batch_size was found 0 times"),
        ("# The builder's", '# key: "max_seq_len", value: { string_value: "1" }\n#', "max_seq_len was found 2 times"),
        ("max_batch_size: 256", "max_batch_size: many", "does not parse"),
    ],
)  # fmt: skip
def test_a_file_that_was_rewritten_by_hand_stays_as_it_is(
    config_pbtxt: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str
) -> None:
    config_pbtxt.write_text(config_pbtxt.read_text().replace(old, new, 1))
    before = config_pbtxt.read_bytes()
    assert limits(checkpoint, config_pbtxt, "--gpu", "l40s", "--profile", "interactive") == 2
    assert message in capsys.readouterr().err
    assert config_pbtxt.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--gpu", "rtx4090"],
            "rtx4090: 23.47 GiB of weights and 3 GiB for the runtime on each of 1; accepted: less than 23.5 GiB",
        ),
        (["--gpu", "l40s", "--memory-gib", "26"], "accepted: less than 26 GiB together"),
    ],
)
def test_gpus_that_do_not_hold_the_model(
    config_pbtxt: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert limits(checkpoint, config_pbtxt, *options, "--profile", "throughput") == 2
    assert message in capsys.readouterr().err
    assert config_pbtxt.read_bytes() == SHIPPED.read_bytes()


def test_a_split_that_would_be_padded(
    tmp_path: Path, config_pbtxt: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint.write_text(json.dumps({**MIXTRAL_8X7B, "intermediate_size": 14208}))
    assert limits(checkpoint, config_pbtxt, "--gpu", "h200", "--gpus", "2", "--profile", "throughput") == 2
    assert "tensor_parallel_size 2 would pad intermediate_size of 14208" in capsys.readouterr().err
