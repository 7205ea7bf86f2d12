"""The product's model repository with an engine of the tiny Mixtral, for a real Triton."""

import shutil
from pathlib import Path

from build_engine.__main__ import main as build_engine

MAX_SEQ_LEN = 512
MAX_BATCH_SIZE = 8
_SHIPPED = Path(__file__).parents[1] / "model_repository" / "openvino"
_CHANGES = (
    ('"max_seq_len", value: { string_value: "8192"', f'"max_seq_len", value: {{ string_value: "{MAX_SEQ_LEN}"'),
    ('"precision", value: { string_value: "auto"', '"precision", value: { string_value: "f32"'),
    ('"kv_cache_bytes", value: { string_value: "1073741824"', '"kv_cache_bytes", value: { string_value: "67108864"'),
    ("max_batch_size: 64", f"max_batch_size: {MAX_BATCH_SIZE}"),
)


def write_tiny_repository(repository: Path, checkpoint: Path) -> Path:
    """Build the engine of `checkpoint` into a new `repository`: a short context, float32 arithmetic."""
    ignored = shutil.ignore_patterns("engine", "engines", ".engine.*", "__pycache__")
    shutil.copytree(_SHIPPED, repository / "openvino", ignore=ignored)
    config = repository / "openvino" / "config.pbtxt"
    text = config.read_text()
    for old, new in _CHANGES:
        assert old in text, f"config.pbtxt no longer holds {old}"
        text = text.replace(old, new)
    config.write_text(text)
    assert build_engine(["build", "--model-repository", str(repository), str(checkpoint)]) == 0
    return repository
