"""A build holds one tensor at a time, so its memory does not grow with the number of layers."""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save_file

from build_engine.mixtral import engine_bytes, expected_tensors, to_mixtral_config
from tests.build_engine.workplace import INDEX, SMALL, CheckpointDir, Repository, start
from tests.tiny_mixtral import tiny_tensors

MIB = 2**20
FEW, MANY = 2, 6
CONFIG: dict[str, Any] = SMALL | {
    "hidden_size": 1024,
    "intermediate_size": 2560,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "num_local_experts": 8,
    "quantization_config": SMALL["quantization_config"] | {"group_size": 128},
}
MIXTRAL_8X7B: dict[str, Any] = {
    "model_type": "mixtral",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
    "hidden_act": "silu",
    "sliding_window": None,
    "tie_word_embeddings": False,
    "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"},
}

PEAK = """
from pathlib import Path
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]) * 1024)
"""
"""Prints the peak of this process alone: ru_maxrss would count the parent's, from before the exec."""
BUILD = "import sys; from build_engine.__main__ import main; print(main(sys.argv[1:]))" + PEAK
GRAPH = (
    "import json, sys; from build_engine.mixtral import to_mixtral_config;"
    "from build_engine.openvino.graph import MixtralGraph;"
    "graph = MixtralGraph(to_mixtral_config(json.loads(sys.argv[1]))); graph.build();"
    "print(len(graph.placeholders.parameters))" + PEAK
)


def layers_apart(tensors: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """One shard for the tensors outside the layers, and one for each layer: the only layer under another name."""
    own = "model.layers.0."
    yield "rest.safetensors", {name: values for name, values in tensors.items() if not name.startswith(own)}
    layer = {name.removeprefix(own): values for name, values in tensors.items() if name.startswith(own)}
    for number in range(MANY):
        yield f"layer-{number}.safetensors", {f"model.layers.{number}.{name}": v for name, v in layer.items()}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, small_tokenizer: Path) -> Iterator[dict[int, CheckpointDir]]:
    """Checkpoints of few and of many equal layers, linked to the same files; removed at the end for their size."""
    path = tmp_path_factory.mktemp("large")
    weight_map: dict[str, str] = {}
    for shard, tensors in layers_apart(tiny_tensors(CONFIG | {"num_hidden_layers": 1})):
        save_file(tensors, path / shard)
        weight_map |= dict.fromkeys(tensors, shard)
    yield {layers: _linked(path, layers, weight_map, small_tokenizer) for layers in (FEW, MANY)}
    shutil.rmtree(path)


def _linked(path: Path, layers: int, weight_map: dict[str, str], tokenizer: Path) -> CheckpointDir:
    shards = {"rest.safetensors", *(f"layer-{number}.safetensors" for number in range(layers))}
    checkpoint = CheckpointDir(path / f"{layers} layers")
    shutil.copytree(tokenizer, checkpoint.path)
    for shard in shards:
        (checkpoint.path / shard).symlink_to(path / shard)
    part = {name: shard for name, shard in weight_map.items() if shard in shards}
    checkpoint.write(INDEX, json.dumps({"weight_map": part}))
    checkpoint.write("config.json", json.dumps(CONFIG | {"num_hidden_layers": layers}))
    return checkpoint


def output(program: list[str]) -> list[int]:
    """The last two lines that a program prints, the second from PEAK."""
    process = start(["-c", *program])
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return [int(line) for line in out.splitlines()[-2:]]


def build_peak_bytes(tmp_path: Path, checkpoint: CheckpointDir) -> int:
    repository = Repository(tmp_path / checkpoint.path.name)
    repository.create()
    status, peak = output([BUILD, *repository.build(checkpoint)])
    assert status == 0
    shutil.rmtree(repository.path)
    return peak


def experts_bytes(fields: dict[str, Any]) -> int:
    """Bytes of one layer's experts, equal in the checkpoint and in the engine."""
    one_layer = to_mixtral_config(fields | {"num_hidden_layers": 1})
    specs = expected_tensors(one_layer)
    return sum(spec.engine_bytes for name, spec in specs.items() if ".experts." in name)


def test_peak_memory_stays_below_a_layer_and_does_not_grow_with_layers(
    checkpoints: dict[int, CheckpointDir], tmp_path: Path
) -> None:
    layer = experts_bytes(CONFIG)
    assert layer > 30 * MIB, "a small layer would prove nothing"
    few, many = (build_peak_bytes(tmp_path, checkpoints[layers]) for layers in (FEW, MANY))
    assert many < layer + 1024 * MIB
    assert many - few < layer


def test_mixtral_8x7b_has_the_tensors_of_its_published_checkpoint() -> None:
    config = to_mixtral_config(MIXTRAL_8X7B)
    specs = expected_tensors(config)
    # Embedding, head and norm; per layer two norms, the router, and three tensors for each of 4 + 8 * 3 linears.
    assert len(specs) == 3 + 32 * (3 + 3 * (4 + 8 * 3))
    expert = "model.layers.31.block_sparse_moe.experts.7"
    assert specs["model.layers.0.self_attn.k_proj.qweight"].shape == (4096, 128)
    assert specs[f"{expert}.w1.qweight"].shape == (4096, 1792)
    assert specs[f"{expert}.w2.qzeros"].shape == (112, 512)
    assert specs[f"{expert}.w3.scales"].shape == (32, 14336)
    assert config.kv_bytes_per_token == 128 * 1024


def test_mixtral_8x7b_has_the_size_of_its_published_checkpoint() -> None:
    config = to_mixtral_config(MIXTRAL_8X7B)
    quantized = sum(8 * math.prod(spec.shape) for name, spec in expected_tensors(config).items() if "qweight" in name)
    assert quantized == 46_439_333_888
    assert engine_bytes(config) == pytest.approx(24.65e9, rel=1e-3)


def test_the_graph_of_mixtral_8x7b_holds_no_weights() -> None:
    placeholders, peak = output([GRAPH, json.dumps(MIXTRAL_8X7B)])
    # Embedding, head and norm; per layer two norms, the router, and three tensors for each multiplication: two of
    # attention, two of each expert.
    assert placeholders == 3 + 32 * (3 + 3 * (2 + 2 * 8))
    assert peak < 512 * MIB
