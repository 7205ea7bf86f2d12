"""What a precision of the CPU engine costs: nats per token and changed greedy tokens against exact float32.

`python -m tests.benchmarks.precision [ENGINE_DIR]` runs the held-out text of the demo checkpoint through the published
engine, once for each precision. A machine without bfloat16 instructions computes bfloat16 as float32.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from tokenizers import Tokenizer

from build_engine.demo.texts import read_documents

ENGINE_DIR = Path("model_repository/openvino/1/engine")
PRECISIONS = (("f32", 0), ("f32", 32), ("bf16", 0))
"""INFERENCE_PRECISION_HINT and DYNAMIC_QUANTIZATION_GROUP_SIZE; the first is what the others are compared with."""


def logits_of(engine_dir: Path, hint: str, group_size: int, sequences: list[list[int]]) -> list[NDArray[np.float32]]:
    """The logits of every sequence, each [S, vocab]."""
    properties = {"INFERENCE_PRECISION_HINT": hint, "DYNAMIC_QUANTIZATION_GROUP_SIZE": group_size}
    compiled = ov.Core().compile_model(engine_dir / "openvino_model.xml", "CPU", properties)
    return [_forward(compiled, sequence) for sequence in sequences]


def _forward(compiled: ov.CompiledModel, token_ids: list[int]) -> NDArray[np.float32]:
    ids = np.array([token_ids], np.int64)
    inputs: dict[str, Any] = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "position_ids": np.arange(ids.size)[None],
        "beam_idx": np.zeros(1, np.int32),
    }
    return np.array(compiled.create_infer_request().infer(inputs)["logits"][0])


def losses(logits: NDArray[np.float32], token_ids: list[int]) -> NDArray[np.float64]:
    """Negative log-likelihood of each token but the first, in nats."""
    scores = logits[:-1].astype(np.float64)
    top = scores.max(axis=-1)
    log_sums = top + np.log(np.exp(scores - top[:, None]).sum(axis=-1))
    return np.asarray(log_sums - scores[np.arange(len(scores)), token_ids[1:]])


def main() -> None:
    """Print a line for each precision."""
    engine_dir = Path(sys.argv[1]) if len(sys.argv) > 1 else ENGINE_DIR
    tokenizer = Tokenizer.from_file(str(engine_dir / "tokenizer.json"))
    sequences = [tokenizer.encode(text).ids for text in read_documents("heldout.txt")]
    exact: tuple[float, NDArray[np.int64]] | None = None
    for hint, group_size in PRECISIONS:
        logits = logits_of(engine_dir, hint, group_size, sequences)
        nats = np.concatenate([losses(one, ids) for one, ids in zip(logits, sequences, strict=True)])
        greedy = np.concatenate([one.argmax(axis=-1) for one in logits])
        exact = exact or (float(nats.mean()), greedy)
        changed = int((greedy != exact[1]).sum())
        print(
            f"{hint}, dynamic quantization group {group_size:2}: {nats.mean():.4f} nats per token"
            f" ({nats.mean() - exact[0]:+.4f}), {changed} of {greedy.size} greedy tokens changed"
        )


if __name__ == "__main__":
    main()
