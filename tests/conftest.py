"""Fixtures that several suites share."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.log_privacy import EXCHANGED, as_text, recorded
from tests.mixtral_tokenizer import write_mixtral_tokenizer
from tests.tiny_mixtral import TINY, tiny_tensors, write_checkpoint

# By default the same test draws the same examples each time. HYPOTHESIS_PROFILE=random draws new ones.
# Without a deadline: on a busy machine any example may take longer.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.register_profile("random", deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(scope="session", autouse=True)
def exchanged_texts() -> Iterator[None]:
    """Remember what clients exchange with servers."""
    with recorded():
        yield


@pytest.fixture(autouse=True)
def private_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """After every test: no line of the log shows a text of a prompt or an answer, or a key."""
    since = len(EXCHANGED)
    yield
    log = as_text(record for phase in ("setup", "call") for record in caplog.get_records(phase))
    assert not EXCHANGED.shown_in(log, since), log


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
