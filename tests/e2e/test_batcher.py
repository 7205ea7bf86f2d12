"""The order in which requests start, and the end of the engine's process when Triton was killed."""

import json
import signal
import subprocess
import sys

import pytest

from tests.e2e.conftest import ROOT

HANGS = """
import ctypes, time
import batcher
from kv_room import KvRoom

batcher._SERVER_GONE_S = 0.5
batcher.prompt_tensor = lambda request: None

class Request:
    generation_config = None
    reserved_tokens = 32

class Pipeline:
    def add_request(self, *_):
        return self

class Client:
    def is_cancelled(self):
        ctypes.PyDLL(None).sleep(60)  # holds the GIL, as the Python backend does while it waits for a lock

batcher.Batcher(Pipeline(), KvRoom(num_blocks=1, max_batch_size=1), print).submit(Request(), Client())
time.sleep(60)
"""

ROOM = """
import json, sys, threading
import batcher
from openvino_genai import GenerationStatus

batcher.prompt_tensor = lambda request: request
batcher.SIGN_OF_LIFE_NS = int(sys.argv[3]) if len(sys.argv) > 3 else batcher.SIGN_OF_LIFE_NS
cancelled, blocks = sys.argv[1], map(int, sys.argv[2])
all_submitted, all_ended, log = threading.Event(), threading.Event(), []

class Request:
    generation_config, streaming, end_id, arrival_time_ns = None, len(sys.argv) > 3, None, 0

    def __init__(self, name, reserved_tokens):
        self.name, self.reserved_tokens = name, reserved_tokens

class Handle:
    def __init__(self, name):
        self.name, self.steps = name, 9 if name == "a" else 2

    def can_read(self):
        return False

    def get_status(self):
        self.steps -= 1
        return GenerationStatus.RUNNING if self.steps else GenerationStatus.FINISHED

    def cancel(self):
        pass

class Pipeline:
    def add_request(self, request_id, request, config):
        log.append(f"{request.name} starts")
        return Handle(request.name)

    def step(self):
        all_submitted.wait()
        if log[-1] != "step":
            log.append("step")

class Client:
    def __init__(self, name):
        self.name = name

    def is_cancelled(self):
        return self.name == cancelled and all_submitted.is_set()

    def send(self, request, progress, final):
        log.append(f"{self.name} is complete" if final else f"{self.name} gets {progress.token_ids}")

    def cancel(self, progress):
        log.append(f"{self.name} is cancelled")

def on_step(num_requests):
    if num_requests == 0:
        print(json.dumps([entry for entry in log if entry != "step" or cancelled == "a"]), flush=True)
        all_ended.set()

engine = batcher.Batcher(Pipeline(), batcher.KvRoom(num_blocks=4, max_batch_size=3), on_step)
for name, num_blocks in zip("abc", blocks):
    engine.submit(Request(name, 32 * num_blocks), Client(name))
all_submitted.set()
all_ended.wait()
engine.close()
"""


def run_in_model(script: str, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """A Python script that may import the Triton model's modules."""
    model = ROOT / "model_repository" / "openvino" / "1"
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, cwd=model, env={"PYTHONPATH": str(model)}, capture_output=True, timeout=30)


@pytest.mark.parametrize(
    ("blocks", "cancelled", "expected"),
    [
        ("211", "", ["a starts", "b starts", "c starts", "b is complete", "c is complete", "a is complete"]),
        ("321", "", ["a starts", "a is complete", "b starts", "c starts", "b is complete", "c is complete"]),
        ("321", "b", ["a starts", "b is cancelled", "c starts", "c is complete", "a is complete"]),
    ],
    ids=["all fit", "one that fits does not overtake", "one that left while waiting"],
)
def test_requests_start_in_order_when_the_kv_cache_has_room(blocks: str, cancelled: str, expected: list[str]) -> None:
    assert json.loads(run_in_model(ROOM, cancelled, blocks).stdout) == expected


def test_a_step_frees_the_room_of_a_cancelled_request_before_another_starts() -> None:
    log = json.loads(run_in_model(ROOM, "a", "44").stdout)
    assert log[-5:] == ["a is cancelled", "step", "b starts", "step", "b is complete"]


def test_a_stream_gets_empty_responses_until_its_first_token() -> None:
    """Triton notices a closed connection only when it writes. Here no request has a token before its end."""
    log = json.loads(run_in_model(ROOM, "", "41", "0").stdout)
    assert log.count("a gets []") > 5
    assert log.index("b gets []") < log.index("b starts") < log.index("b is complete")
    assert log[-1] == "b is complete"


def test_a_call_to_triton_that_never_returns_ends_the_process_with_a_traceback() -> None:
    ended = run_in_model(HANGS)
    assert ended.returncode == -signal.SIGALRM
    assert b"in is_cancelled" in ended.stderr
