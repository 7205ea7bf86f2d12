"""A server that runs keeps its engine while another one is published, also in a process that starts later."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from build_engine.__main__ import main
from tests.build_engine.workplace import CheckpointDir
from tests.e2e.conftest import Server, events, running


def prompt_log_probs(server: Server) -> Any:
    """Those of the prompt's tokens, which the scorer computes: it starts with the first such request."""
    name = "prompt_token_log_probs"
    responses = list(events(server, request_output_len=1, end_id=-1, num_prompt_top_log_probs=1))
    return next(response[name] for response in responses if name in response)


def test_a_server_keeps_its_engine_while_another_is_published(
    server: Server, model_repository: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    repository = Path(shutil.copytree(model_repository, tmp_path / "model_repository", symlinks=True))
    changed = CheckpointDir(Path(shutil.copytree(tiny_checkpoint, tmp_path / "changed")))
    changed.poison("model.norm.weight", -50.0)
    (tmp_path / "run").mkdir()
    with running(repository, tmp_path / "run") as started:
        assert main(["build", "--model-repository", str(repository), str(changed.path)]) == 0
        assert (repository / "openvino" / "1" / "engine").readlink() == Path("engines", "2")
        kept = prompt_log_probs(started)
    before = prompt_log_probs(server)
    np.testing.assert_allclose(kept, before, atol=1e-3)
    (tmp_path / "again").mkdir()
    with running(repository, tmp_path / "again") as started:
        after = prompt_log_probs(started)
    assert not np.allclose(after, before, atol=1e-3)
