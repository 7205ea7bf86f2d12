"""The CPU engine computes before its first request."""

import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import ROOT

STEPS = """
import sys
import openvino_genai as genai
from warm_up import warm_up

engine, steps = sys.argv[1], 0

class Counting(genai.ContinuousBatchingPipeline):
    def step(self):
        global steps
        steps += 1
        super().step()

scheduler = genai.SchedulerConfig()
scheduler.num_kv_blocks = 16
pipeline = Counting(engine, genai.Tokenizer(engine + "/tokenizer"), scheduler, "CPU")
warm_up(pipeline, 64, 32000)
print(steps, pipeline.has_non_finished_requests())
"""


def test_a_prompt_and_a_token_after_it_are_computed(model_repository: Path) -> None:
    engine = model_repository / "openvino" / "1" / "engine"
    done = subprocess.run(
        [sys.executable, "-c", STEPS, str(engine)],
        cwd=ROOT / "model_repository" / "openvino" / "1",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.split() == ["2", "False"], done.stderr
