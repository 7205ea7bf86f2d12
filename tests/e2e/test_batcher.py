"""The engine's process ends when Triton was killed in the middle of a call, which then never returns."""

import signal
import subprocess
import sys

from tests.e2e.conftest import ROOT

HANGS = """
import ctypes, time
import batcher

batcher._SERVER_GONE_S = 0.5
batcher.prompt_tensor = lambda request: None

class Request:
    generation_config = None

class Pipeline:
    def add_request(self, *_):
        return self

class Client:
    def is_cancelled(self):
        ctypes.PyDLL(None).sleep(60)  # with the GIL, as a stub that waits for a lock has it

batcher.Batcher(Pipeline(), print).submit(Request(), Client())
time.sleep(60)
"""


def test_a_call_to_triton_that_never_returns_ends_the_process_and_says_where_it_was() -> None:
    model = ROOT / "model_repository" / "openvino" / "1"
    ended = subprocess.run(
        [sys.executable, "-c", HANGS], cwd=model, env={"PYTHONPATH": str(model)}, capture_output=True, timeout=30
    )
    assert ended.returncode == -signal.SIGALRM
    assert b"in is_cancelled" in ended.stderr
