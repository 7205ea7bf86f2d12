"""What several suites share."""

import os
from pathlib import Path

import hypothesis
import pytest

from tests.mixtral_tokenizer import write_mixtral_tokenizer
from tests.tiny_mixtral import TINY, tiny_tensors, write_checkpoint

# The same code gets the same verdict each time; HYPOTHESIS_PROFILE=random looks for what nobody has drawn yet.
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.register_profile("random")
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


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
