"""A guided answer of the CPU engine ends with the end_id of its request, whatever ids the checkpoint names."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from build_engine.checkpoint import open_checkpoint
from build_engine.openvino.build import open_build, run_build
from build_engine.publish import Outcome
from tests.e2e.conftest import ROOT
from tests.frontend.chatml_tokenizer import write_chatml_tokenizer
from tests.tiny_mixtral import TINY, tiny_tensors, write_checkpoint

GENERATE = """
import json, sys
from pathlib import Path

import numpy as np
from generation import EngineLimits, decode_request, prompt_tensor
from kv_room import KvRoom
from settings import EngineSettings, open_pipeline

engine_dir, end_id = Path(sys.argv[1]), int(sys.argv[2])
limits = EngineLimits(max_seq_len=8192, vocab_size=400, exclude_input_in_output=True)
pipeline = open_pipeline(EngineSettings(
    engine_dir=engine_dir, max_num_tokens=256, precision="f32", limits=limits,
    kv_room=KvRoom(num_blocks=64, max_batch_size=4),
))
inputs = {"input_ids": np.array([[5, 6, 7]], np.int32), "input_lengths": np.array([3])}
inputs |= {"request_output_len": np.array([40]), "end_id": np.array([end_id]), "runtime_top_k": np.array([1])}
inputs |= {"guided_decoding_guide_type": np.array([b"ebnf_grammar"], object)}
inputs |= {"guided_decoding_guide": np.array([b'root ::= "yes" | "no"'], object)}
request = decode_request(inputs, limits)
handle = pipeline.add_request(0, prompt_tensor(request), request.generation_config)
token_ids = []
while pipeline.has_non_finished_requests():
    pipeline.step()
    while handle.can_read():
        for output in handle.read().values():
            token_ids += output.generated_ids
print(json.dumps(token_ids))
"""


@pytest.mark.parametrize("eos", [[0], [2], [0, 2], [2, 0]], ids=str)
def test_a_guided_answer_ends_where_its_grammar_ends(tmp_path: Path, eos: list[int]) -> None:
    """Ids of the tokenizer: `<|endoftext|>` is 0, `<|im_end|>`, its eos_token, is 2."""
    tokenizer_dir = tmp_path / "tokenizer"
    tokenizer_dir.mkdir()
    write_chatml_tokenizer(tokenizer_dir)
    (tokenizer_dir / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
    (tokenizer_dir / "manifest.json").unlink()
    config = {**TINY, "vocab_size": 400, "num_hidden_layers": 1}
    checkpoint = open_checkpoint(write_checkpoint(tmp_path / "tiny", config, tiny_tensors(config), tokenizer_dir))
    model_dir = tmp_path / "model_repository" / "openvino"
    (model_dir / "1").mkdir(parents=True)
    model = ROOT / "model_repository" / "openvino"
    (model_dir / "config.pbtxt").write_text((model / "config.pbtxt").read_text())
    build = open_build(checkpoint, model_dir)
    assert run_build(build) is Outcome.BUILT
    command = [sys.executable, "-c", GENERATE, str(build.engine_dir), str(eos[0])]
    ended = subprocess.run(command, cwd=model / "1", capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    *token_ids, last = json.loads(ended.stdout.splitlines()[-1])
    tokenizer = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
    assert tokenizer.decode(token_ids) in ("yes", "no")
    assert last == eos[0]
