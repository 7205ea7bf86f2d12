"""The shards and tensors of a checkpoint that `inspect` and `build` refuse, each with its message.

In the messages, "…" stands for the words of a library.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from build_engine.checkpoint import open_checkpoint
from build_engine.errors import CheckpointError
from tests.build_engine.workplace import INDEX, CheckpointDir, Damage

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
Q_PROJ = "model.layers.0.self_attn.q_proj"
EXPERT = "model.layers.1.block_sparse_moe.experts.3.w2"
NORM = "model.norm.weight"
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

FILES: dict[str, tuple[Damage, str]] = {
    "no weights": (
        lambda c: c.remove(INDEX),
        f"{{path}}: no model.safetensors and no {INDEX}; accepted: safetensors weights",
    ),
    "a truncated shard": (
        lambda c: c.truncate(SECOND, removed_bytes=1),
        f"{SECOND}: truncated or of another format (…); accepted: a safetensors file",
    ),
    "an empty shard": (
        lambda c: c.write(FIRST, b""),
        f"{FIRST}: truncated or of another format (…); accepted: a safetensors file",
    ),
    "a shard of another format": (
        lambda c: c.write(FIRST, b"PK\x03\x04" * 100),
        f"{FIRST}: truncated or of another format (…); accepted: a safetensors file",
    ),
    "an absent shard": (
        lambda c: c.remove(SECOND),
        f"{INDEX}: names shard '{SECOND}', which is absent; accepted: a file beside the index",
    ),
    "an index that is no JSON": (
        lambda c: c.write(INDEX, "{"),
        f"{INDEX}: does not parse (…); accepted: a JSON object",
    ),
    "an index without a weight_map": (
        lambda c: c.write(INDEX, json.dumps({"metadata": {}})),
        f"{INDEX}: no usable weight_map; accepted: an object from tensor names to shard files",
    ),
    "a weight_map of numbers": (
        lambda c: c.write(INDEX, json.dumps({"weight_map": {NORM: 1}})),
        f"{INDEX}: no usable weight_map; accepted: an object from tensor names to shard files",
    ),
    "a shard in the directory above": (
        lambda c: c.index(lambda weight_map: weight_map.update({NORM: f"../{FIRST}"})),
        f"{INDEX}: names shard '../{FIRST}'; accepted: a file beside the index",
    ),
    "a shard at an absolute path": (
        lambda c: c.index(lambda weight_map: weight_map.update({NORM: "/etc/passwd"})),
        f"{INDEX}: names shard '/etc/passwd'; accepted: a file beside the index",
    ),
    "a shard that is a directory": (
        lambda c: c.index(lambda weight_map: weight_map.update({NORM: ".."})),
        f"{INDEX}: names shard '..', which is absent; accepted: a file beside the index",
    ),
}

TENSORS: dict[str, tuple[Damage, str]] = {
    "a missing tensor": (
        lambda c: c.drop(f"{EXPERT}.qzeros"),
        f"tensor {EXPERT}.qzeros: missing from the weights; accepted: I32 [3, 16]",
    ),
    "no head where embeddings are not tied": (
        lambda c: c.drop("lm_head.weight"),
        "tensor lm_head.weight: missing from the weights; accepted: F16 or BF16 or F32 [320, 128]",
    ),
    "a tensor that is not in the shard of the index": (
        lambda c: c.index(lambda weight_map: weight_map.update({f"{Q_PROJ}.scales": SECOND})),
        f"{SECOND}: tensor {Q_PROJ}.scales is not in it, though {INDEX} says so; accepted: F16 [2, 128]",
    ),
    "a layer too few": (
        lambda c: c.configure(num_hidden_layers=3),
        "tensor model.layers.2.input_layernorm.weight: missing from the weights; accepted: F16 or BF16 or F32 [128]",
    ),
    "a layer too many": (
        lambda c: c.configure(num_hidden_layers=1),
        "…: tensor model.layers.1.…; accepted: those of a Mixtral in AutoAWQ gemm layout",
    ),
    "a bias": (
        lambda c: c.store(f"{Q_PROJ}.bias", np.zeros(128, np.float16)),
        f"{FIRST}: tensor {Q_PROJ}.bias is unknown; accepted: those of a Mixtral in AutoAWQ gemm layout",
    ),
    "a bias that the index does not know": (
        lambda c: c.store(f"{Q_PROJ}.bias", np.zeros(128, np.float16), in_index=False),
        f"{FIRST}: tensor {Q_PROJ}.bias is unknown; accepted: those of a Mixtral in AutoAWQ gemm layout",
    ),
    "a name that would break the line": (
        lambda c: c.store("two\nlines", np.zeros(1, np.float16)),
        f"{FIRST}: tensor two lines is unknown; accepted: those of a Mixtral in AutoAWQ gemm layout",
    ),
    "a tensor packed along the inputs": (
        lambda c: c.store(f"{Q_PROJ}.qweight", c.tensor(f"{Q_PROJ}.qweight").T),
        f"{FIRST}: tensor {Q_PROJ}.qweight is I32 [16, 128]; accepted: I32 [128, 16]",
    ),
    "an embedding of another vocabulary": (
        lambda c: c.store("model.embed_tokens.weight", np.zeros((321, 128), np.float16)),
        f"{FIRST}: tensor model.embed_tokens.weight is F16 [321, 128]; accepted: F16 or BF16 or F32 [320, 128]",
    ),
    "scales in float32": (
        lambda c: c.store(f"{EXPERT}.scales", c.tensor(f"{EXPERT}.scales").astype(np.float32)),
        f"…: tensor {EXPERT}.scales is F32 [3, 128]; accepted: F16 [3, 128]",
    ),
    "scales in bfloat16": (
        lambda c: c.store(f"{EXPERT}.scales", c.tensor(f"{EXPERT}.scales").astype(BFLOAT16)),
        f"…: tensor {EXPERT}.scales is BF16 [3, 128]; accepted: F16 [3, 128]",
    ),
    "packed weights in int64": (
        lambda c: c.store(f"{EXPERT}.qweight", c.tensor(f"{EXPERT}.qweight").astype(np.int64)),
        f"…: tensor {EXPERT}.qweight is I64 [192, 16]; accepted: I32 [192, 16]",
    ),
    "a plain weight in integers": (
        lambda c: c.store(NORM, np.ones(128, np.int32)),
        f"{FIRST}: tensor {NORM} is I32 [128]; accepted: F16 or BF16 or F32 [128]",
    ),
}

VALUES: dict[str, tuple[Damage, str]] = {
    "NaN in scales": (
        lambda c: c.poison(f"{EXPERT}.scales", float("nan")),
        f"…: tensor {EXPERT}.scales holds NaN or infinity; accepted: finite numbers",
    ),
    "infinity in scales": (
        lambda c: c.poison(f"{Q_PROJ}.scales", float("-inf")),
        f"…: tensor {Q_PROJ}.scales holds NaN or infinity; accepted: finite numbers",
    ),
    "NaN in a norm": (
        lambda c: c.poison(NORM, float("nan")),
        f"{FIRST}: tensor {NORM} holds NaN or infinity; accepted: finite numbers",
    ),
    "NaN in a router": (
        lambda c: c.poison("model.layers.1.block_sparse_moe.gate.weight", float("nan")),
        "…: tensor model.layers.1.block_sparse_moe.gate.weight holds NaN or infinity; accepted: finite numbers",
    ),
    "NaN in bfloat16": (
        lambda c: c.store(NORM, np.full(128, np.nan, BFLOAT16)),
        f"{FIRST}: tensor {NORM} holds NaN or infinity; accepted: finite numbers",
    ),
    "bfloat16 beyond float16": (
        lambda c: c.store(NORM, np.full(128, 70000, BFLOAT16)),
        f"{FIRST}: tensor {NORM} exceeds float16; accepted: magnitudes up to 65504",
    ),
    "float32 beyond float16": (
        lambda c: c.store(NORM, np.full(128, -1e9, np.float32)),
        f"{FIRST}: tensor {NORM} exceeds float16; accepted: magnitudes up to 65504",
    ),
}

CASES = {**FILES, **TENSORS, **VALUES}


def matches(line: str, message: str) -> bool:
    """Whether the parts of `message` between "…" make up the line, in order."""
    parts, position = message.split("…"), 0
    if not (line.startswith(parts[0]) and line.endswith(parts[-1])):
        return False
    for part in parts:
        position = line.find(part, position) + len(part)
        if position < len(part):
            return False
    return True


@pytest.mark.parametrize(("damage", "message"), CASES.values(), ids=CASES)
def test_a_checkpoint_is_refused_for(
    refused: Callable[[CheckpointDir], str], checkpoint: CheckpointDir, damage: Damage, message: str
) -> None:
    damage(checkpoint)
    line = refused(checkpoint)
    assert matches(line, message.replace("{path}", str(checkpoint.path))), line


def test_a_shard_that_breaks_after_it_was_checked_is_refused(checkpoint: CheckpointDir) -> None:
    opened = open_checkpoint(checkpoint.path)
    checkpoint.truncate(FIRST, removed_bytes=1)
    with pytest.raises(CheckpointError, match=f"^{FIRST}: truncated or of another format"):
        opened.tensor(NORM)


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), BFLOAT16, np.dtype(np.float32)], ids=str)
def test_a_plain_tensor_becomes_float16_from(checkpoint: CheckpointDir, dtype: "np.dtype[Any]") -> None:
    values: NDArray[Any] = np.linspace(-3, 3, 128).astype(BFLOAT16).astype(dtype)
    checkpoint.store(NORM, values)
    read = open_checkpoint(checkpoint.path).tensor(NORM)
    assert read.dtype == np.float16
    np.testing.assert_array_equal(read.astype(np.float64), values.astype(np.float64))


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.rotary_emb.inv_freq", "lm_head.weight"])
def test_a_tensor_without_effect_is_accepted(
    checkpoint: CheckpointDir, succeed: Callable[[list[str]], str], name: str
) -> None:
    checkpoint.configure(tie_word_embeddings=True)
    checkpoint.store(name, np.zeros(16, np.float32))
    assert "Mixtral" in succeed(["inspect", str(checkpoint.path)])


def test_a_single_file_is_read_even_if_there_is_an_index(checkpoint: CheckpointDir, tmp_path: Path) -> None:
    (checkpoint.path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"^model\.safetensors: truncated or of another format"):
        open_checkpoint(checkpoint.path)
