"""What several suites share."""

from pathlib import Path

import pytest

from tests.mixtral_tokenizer import write_mixtral_tokenizer
from tests.tiny_mixtral import TINY, tiny_tensors, write_checkpoint


@pytest.fixture(scope="session")
def mixtral_tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the tokenizer files of Mixtral-8x7B-Instruct-v0.1."""
    directory = tmp_path_factory.mktemp("mixtral_tokenizer")
    write_mixtral_tokenizer(directory)
    return directory


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, mixtral_tokenizer_dir: Path) -> Path:
    """A tiny AutoAWQ Mixtral with random, different experts and the real Mixtral tokenizer. Not to be written to."""
    return write_checkpoint(
        tmp_path_factory.mktemp("checkpoint") / "tiny", TINY, tiny_tensors(TINY), mixtral_tokenizer_dir
    )
