"""An engine for the double of Triton, without a build: its files, and the double that serves it in this process."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from build_engine.checkpoint import Checkpoint
from build_engine.model_config import ServingConfig, read_serving_config
from build_engine.tensorrt_llm.smoke_test.client import Client
from build_engine.tensorrt_llm.smoke_test.triton import Serving, write_repository
from build_engine.tensorrt_llm.tokenizer_info import write_tokenizer_info
from tests.build_engine.tensorrt_llm.conftest import ROOT
from tests.doubles.tensorrtllm_backend import Backend, load
from tests.doubles.triton_core import read_config
from tests.doubles.tritonserver import listening

MAX_SEQ_LEN = 512


def write_engine(directory: Path, checkpoint: Checkpoint) -> Path:
    """The files that the double loads: an engine for one GPU, and the vocabulary of its checkpoint."""
    directory.mkdir(parents=True)
    config = {
        "pretrained_config": {"mapping": {"world_size": 1}, "vocab_size": checkpoint.config.vocab_size},
        "build_config": {"max_seq_len": MAX_SEQ_LEN},
    }
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "rank0.engine").write_bytes(b"engine")
    write_tokenizer_info(checkpoint, directory)
    return directory


def write_config(config_pbtxt: Path, *, max_seq_len: int = MAX_SEQ_LEN, without: str = "") -> ServingConfig:
    """The repository's config.pbtxt with the double's context length, and without the tensor or parameter `without`."""
    text = (ROOT / "model_repository" / "tensorrt_llm" / "config.pbtxt").read_text()
    text = re.sub(r'(key: "max_seq_len", value: { string_value: )"\d+"', rf'\1"{max_seq_len}"', text)
    if without:
        text, removed = re.subn(rf'  {{ (name|key): "{without}",[^\n]*(\n    [^\n]*)?}},?\n', "", text)
        assert removed == 1
        text = re.sub(r"},\n]", "}\n]", text)
    config_pbtxt.parent.mkdir(parents=True, exist_ok=True)
    config_pbtxt.write_text(text)
    return read_serving_config(config_pbtxt)


def serving_of(engine_dir: Path, directory: Path, config: ServingConfig) -> Serving:
    """How the smoke test serves the engine, with its files in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    return Serving(engine_dir=engine_dir, config=config, tp_size=1, directory=directory)


def load_double(serving: Serving) -> Backend:
    """The double's backend with an engine, as its program loads it. Raises LoadError."""
    return load(read_config(write_repository(serving), "tensorrt_llm"))


@contextmanager
def served(backend: Backend) -> Iterator[Client]:
    """The double in this process, where a test can change what it does."""
    with listening(backend) as (http_port, metrics_port):
        yield Client(http_port=http_port, metrics_port=metrics_port)
