"""Fixtures that several suites share."""

import os
from pathlib import Path

import hypothesis
import pytest

from tests.mixtral_tokenizer import write_mixtral_tokenizer
from tests.tiny_mixtral import TINY, tiny_tensors, write_checkpoint

# By default the same test draws the same examples each time. HYPOTHESIS_PROFILE=random draws new ones.
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
    """A tiny AutoAWQ Mixtral with random weights and the real Mixtral tokenizer. Shared by all tests: read-only."""
    return write_checkpoint(
        tmp_path_factory.mktemp("checkpoint") / "tiny", TINY, tiny_tensors(TINY), mixtral_tokenizer_dir
    )
