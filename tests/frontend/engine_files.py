"""The manifest of a published engine directory, for tests."""

import json
from pathlib import Path


def write_manifest(directory: Path, checkpoint: str) -> None:
    """The manifest of an engine of `checkpoint`, a path, with Mixtral's vocabulary."""
    manifest = {
        "format": 4,
        "target": "openvino",
        "checkpoint": {"path": checkpoint, "files": {}},
        "model": {"vocab_size": 32000, "end_tokens": {"end_id": 2, "other_end_ids": [], "pad_id": 2}},
        "versions": {"openvino": "2026.1"},
    }
    (directory / "manifest.json").write_text(json.dumps(manifest))
