"""The engine's process ends itself when a call to Triton does not return, as after Triton was killed."""

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
        ctypes.PyDLL(None).sleep(60)  # holds the GIL, as the Python backend does while it waits for a lock

batcher.Batcher(Pipeline(), print).submit(Request(), Client())
time.sleep(60)
"""


def test_a_call_to_triton_that_never_returns_ends_the_process_with_a_traceback() -> None:
    model = ROOT / "model_repository" / "openvino" / "1"
    ended = subprocess.run(
        [sys.executable, "-c", HANGS], cwd=model, env={"PYTHONPATH": str(model)}, capture_output=True, timeout=30
    )
    assert ended.returncode == -signal.SIGALRM
    assert b"in is_cancelled" in ended.stderr
