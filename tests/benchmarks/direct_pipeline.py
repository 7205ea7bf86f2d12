"""The CPU model's pipeline without Triton, opened as Triton opens it."""

import json
import sys
from pathlib import Path
from typing import Any

from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig


def open_direct_pipeline(model_dir: Path) -> tuple[Any, Any]:
    """The pipeline and its EngineSettings, by the code and the config.pbtxt of `model_dir`.

    That code is imported by its own names, so call this once in a process.
    """
    sys.path.insert(0, str(model_dir / "1"))
    from settings import open_pipeline, read_settings  # type: ignore[import-not-found]  # the Triton model's own

    config = text_format.Parse((model_dir / "config.pbtxt").read_text(), ModelConfig())
    settings = read_settings(
        {
            "model_config": json.dumps(json_format.MessageToDict(config, preserving_proto_field_name=True)),
            "model_repository": str(model_dir),
            "model_version": "1",
        }
    )
    return open_pipeline(settings), settings
