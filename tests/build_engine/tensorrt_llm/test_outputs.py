"""config.pbtxt of the GPU model declares every output that TensorRT-LLM's backend emits, with its type."""

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

from build_engine.tensorrt_llm.smoke_test.inputs import PERF_METRICS as CHECKED
from tests.build_engine.tensorrt_llm.conftest import ROOT, GpuHost
from tests.doubles.tensorrtllm_backend import OTHER_OUTPUTS, PERF_METRICS

CONFIG_PBTXT = ROOT / "model_repository" / "tensorrt_llm" / "config.pbtxt"
EMITTED = {**OTHER_OUTPUTS, **{name: data_type for name, (data_type, _) in PERF_METRICS.items()}}


def parse(config_pbtxt: Path) -> ModelConfig:
    return text_format.Parse(config_pbtxt.read_text(), ModelConfig())


def test_every_output_that_the_backend_emits_is_declared_with_its_type() -> None:
    declared = {output.name: DataType.Name(output.data_type) for output in parse(CONFIG_PBTXT).output}
    assert declared == EMITTED


def test_performance_metrics_have_one_value_per_request() -> None:
    dims = {output.name: list(output.dims) for output in parse(CONFIG_PBTXT).output}
    assert all(dims[name] == [1] for name in PERF_METRICS)


def test_the_smoke_test_looks_for_every_performance_metric() -> None:
    assert set(CHECKED) == PERF_METRICS.keys()


@pytest.mark.parametrize("name", ["acceptance_rate", "kv_cache_reused_blocks"])
def test_an_engine_whose_config_lacks_an_output_is_not_published(
    host: GpuHost, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    config_pbtxt = host.model_dir / "config.pbtxt"
    config = parse(config_pbtxt)
    (output,) = (output for output in config.output if output.name == name)
    config.output.remove(output)
    config_pbtxt.write_text(text_format.MessageToString(config))
    assert host.build() == 2
    said = capsys.readouterr().err
    assert "smoke: return_perf_metrics: the engine answered with status 500" in said
    assert f"unexpected inference output '{name}' for model 'tensorrt_llm'" in said
    assert not host.engine_dir.exists()
