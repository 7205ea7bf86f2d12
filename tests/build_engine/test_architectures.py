"""Every kind of Mixtral that is accepted computes what an independent forward computes."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from build_engine.openvino.weights import MODEL_XML
from tests.build_engine.workplace import SMALL, CheckpointDir, Repository
from tests.reference_mixtral import ReferenceMixtral
from tests.tiny_mixtral import tiny_tensors, write_checkpoint

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
PROMPT = [1, 44, 300, 7, 7, 250, 12, 99, 3, 180]

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "grouped-query attention": {},
    "multi-query attention": {"num_key_value_heads": 1},
    "multi-head attention": {"num_key_value_heads": 4},
    "tied embeddings": {"tie_word_embeddings": True},
    "heads wider than hidden_size / heads": {"head_dim": 64},
    "heads narrower than hidden_size / heads": {"head_dim": 16},
    "one expert per token": {"num_experts_per_tok": 1},
    "eight experts, all of them used": {"num_local_experts": 8, "num_experts_per_tok": 8},
    "one layer": {"num_hidden_layers": 1},
    "groups of 128": {
        "intermediate_size": 256,
        "quantization_config": SMALL["quantization_config"] | {"group_size": 128},
    },
    "another rotary base": {"rope_theta": 1e4},
    "another epsilon": {"rms_norm_eps": 0.1},
}


def engine_logits(repository: Repository) -> NDArray[np.float32]:
    """Logits of PROMPT, [tokens, vocabulary]."""
    compiled = ov.Core().compile_model(repository.engine / MODEL_XML, "CPU", EXACT)
    length = len(PROMPT)
    inputs = {
        "input_ids": np.array([PROMPT]),
        "attention_mask": np.ones((1, length), np.int64),
        "position_ids": np.arange(length)[None],
        "beam_idx": np.zeros(1, np.int32),
    }
    logits: NDArray[np.float32] = compiled(inputs)["logits"][0]
    return logits


def error(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """The relative error over all tokens."""
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


@pytest.mark.parametrize("fields", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_logits_equal_an_independent_forward_with(
    succeed: Callable[[list[str]], str],
    repository: Repository,
    small_tokenizer: Path,
    tmp_path: Path,
    fields: dict[str, Any],
) -> None:
    config = SMALL | fields
    tensors = tiny_tensors(config)
    if config["tie_word_embeddings"]:
        del tensors["lm_head.weight"]
    path = write_checkpoint(tmp_path / "checkpoint", config, tensors, small_tokenizer)
    succeed(repository.build(CheckpointDir(path)))
    assert error(engine_logits(repository), ReferenceMixtral(config, tensors).logits(PROMPT)) < 1e-3


def test_the_reference_differs_for_each_of_these_architectures() -> None:
    """If a field had no effect on the reference, its test above would prove nothing."""
    base = ReferenceMixtral(SMALL, tiny_tensors(SMALL)).logits(PROMPT)
    for fields in (
        {"tie_word_embeddings": True},
        {"num_experts_per_tok": 1},
        {"rope_theta": 1e4},
        {"rms_norm_eps": 0.1},
    ):
        assert error(ReferenceMixtral(SMALL | fields, tiny_tensors(SMALL)).logits(PROMPT), base) > 1e-2


def test_a_stored_head_is_not_used_when_embeddings_are_tied(
    succeed: Callable[[list[str]], str], repository: Repository, checkpoint: CheckpointDir
) -> None:
    checkpoint.configure(tie_word_embeddings=True)
    succeed(repository.build(checkpoint))
    theirs = ReferenceMixtral(SMALL | {"tie_word_embeddings": True}, tiny_tensors(SMALL)).logits(PROMPT)
    assert error(engine_logits(repository), theirs) < 1e-3


def test_a_single_file_without_index_gives_the_same_engine_as_shards(
    succeed: Callable[[list[str]], str], repository: Repository, checkpoint: CheckpointDir
) -> None:
    succeed(repository.build(checkpoint))
    sharded = (repository.engine / "openvino_model.bin").read_bytes()
    for file in checkpoint.path.glob("model*"):
        file.unlink()
    save_file(tiny_tensors(SMALL), checkpoint.path / "model.safetensors")
    assert "in 1 file(s)" in succeed(["inspect", str(checkpoint.path)])
    assert succeed(repository.build(checkpoint)).startswith("published")
    assert (repository.engine / "openvino_model.bin").read_bytes() == sharded


def test_shards_may_be_links_as_in_the_hugging_face_cache(
    succeed: Callable[[list[str]], str], repository: Repository, checkpoint: CheckpointDir, tmp_path: Path
) -> None:
    blobs = Path(shutil.move(checkpoint.path, tmp_path / "blobs"))
    checkpoint.path.mkdir()
    for file in blobs.iterdir():
        (checkpoint.path / file.name).symlink_to(file)
    assert succeed(repository.build(checkpoint)).startswith("published")


def test_the_manifest_holds_what_serving_needs(
    succeed: Callable[[list[str]], str], repository: Repository, checkpoint: CheckpointDir
) -> None:
    succeed(repository.build(checkpoint))
    manifest = repository.manifest
    assert manifest["target"] == "openvino"
    assert manifest["checkpoint"]["path"] == str(checkpoint.path)
    # Keys and values, 2 layers, 2 heads of 32, two bytes each.
    assert manifest["model"] == {
        "vocab_size": 320,
        "kv_bytes_per_token": 2 * 2 * 2 * 32 * 2,
        "end_tokens": {"end_id": 2, "other_end_ids": [], "pad_id": 2},
    }
    assert manifest["limits"].keys() == {"max_batch_size", "max_seq_len", "max_num_tokens"}
    assert manifest["versions"].keys() == {"openvino", "openvino-genai", "openvino-tokenizers", "graph"}
