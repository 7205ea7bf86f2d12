"""The engine's compiler of grammars and its cache, reached through a pipeline with a model of one tiny layer.

GenAI compiles a guide where a request first runs, and keeps what it compiled with the tokenizer, without a bound
(tokenizer_impl.cpp: `get_structured_output_controller`; xgrammar's GrammarCompiler). Pipelines that share a tokenizer
share that cache.
"""

import ctypes
import re
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import openvino as ov
import openvino_genai as genai
from openvino import opset13 as ops

MAX_COMPILED = 64
"""Guides that the cache holds at most."""
_FIRST_GUIDE = genai.StructuredOutputConfig(grammar='root ::= "a"')


class GuideError(Exception):
    """The guide does not compile; the message is xgrammar's."""


class GuideCache:
    """Compiles guides for all pipelines that have the tokenizer. Not for use from several threads at once."""

    def __init__(self, model_dir: Path, tokenizer: genai.Tokenizer) -> None:
        self._pipeline = _open(model_dir, tokenizer)
        with tempfile.TemporaryDirectory() as directory:
            _write_with_one_token_less(model_dir, Path(directory))
            self._other = _open(Path(directory), tokenizer)
        self._request_ids = count()
        self._num_compiled = 0
        self.clear()

    @property
    def is_full(self) -> bool:
        """Whether `clear` is due."""
        return self._num_compiled >= MAX_COMPILED

    def compile(self, guide: genai.StructuredOutputConfig) -> None:
        """Compile with the GIL released: the batch goes on. No guided request may start meanwhile.

        Where one starts, GenAI writes a vector of times without a lock. Raises GuideError.
        """
        self._num_compiled += 1
        try:
            self._pipeline.generate([_PROMPT], [_config(guide, 1)])
        except Exception as error:
            raise GuideError(_reason(error)) from error

    def steps(self, guide: genai.StructuredOutputConfig, num_tokens: int) -> "genai.GenerationHandle":
        """Add a request for random tokens, 250 at most; `step` generates one after the other.

        The request ends with the handle.
        """
        return self._pipeline.add_request(next(self._request_ids), _PROMPT, _config(guide, num_tokens))

    def step(self) -> bool:
        """Generate one token. False when there is no request."""
        if self._pipeline.has_non_finished_requests():
            self._pipeline.step()
        return bool(self._pipeline.has_non_finished_requests())

    def clear(self) -> None:
        """Drop all compiled guides that no request uses.

        GenAI makes a new compiler when a pipeline with another size of vocabulary uses the tokenizer. It does that
        without a lock too, so in `step`, which holds the GIL as the batch's `step` does. 0.03 s.
        """
        for pipeline in (self._other, self._pipeline):
            handle = pipeline.add_request(next(self._request_ids), _PROMPT, _config(None, 1))
            pipeline.step()
            del handle  # not before: a request without a handle is dropped, and does not run
        ctypes.CDLL(None).malloc_trim(0)
        self._num_compiled = 0
        self.compile(_FIRST_GUIDE)  # sorts the vocabulary, 0.1 s


_PROMPT = ov.Tensor(np.zeros((1, 1), np.int64))


def _config(guide: genai.StructuredOutputConfig | None, num_tokens: int) -> genai.GenerationConfig:
    config = genai.GenerationConfig()
    config.apply_chat_template = False
    config.max_new_tokens = num_tokens
    config.do_sample = num_tokens > 1
    if guide is not None:
        config.structured_output_config = guide
    return config


def _open(model_dir: Path, tokenizer: genai.Tokenizer) -> genai.ContinuousBatchingPipeline:
    scheduler = genai.SchedulerConfig()
    scheduler.num_kv_blocks = 8
    return genai.ContinuousBatchingPipeline(model_dir, tokenizer, scheduler, "CPU")


def write_that_goes_on(model_dir: Path, directory: Path, end_token_id: int) -> None:
    """Write the model of one layer so that it ends an answer only where the guide allows nothing else."""

    def unlikely(logits: ov.Output) -> ov.Node:
        bias = np.zeros((1, 1, logits.get_partial_shape()[2].get_length()), np.float32)
        bias[..., end_token_id] = -1000.0
        return ops.add(logits, ops.constant(bias))

    _rewrite(model_dir, directory, unlikely)


def _write_with_one_token_less(model_dir: Path, directory: Path) -> None:
    def shorter(logits: ov.Output) -> ov.Node:
        return ops.slice(logits, np.array([0]), np.array([-1]), np.array([1]), np.array([2]))

    _rewrite(model_dir, directory, shorter)


def _rewrite(model_dir: Path, directory: Path, change: Callable[[ov.Output], ov.Node]) -> None:
    """The model with other logits; theirs are [batch, tokens, vocabulary]."""
    model = ov.Core().read_model(model_dir / "openvino_model.xml")
    logits = model.get_results()[0].input(0)
    logits.replace_source_output(change(logits.get_source_output()).output(0))
    model.validate_nodes_and_infer_types()
    ov.save_model(model, directory / "openvino_model.xml")


def _reason(error: Exception) -> str:
    """xgrammar's message without the position in its source code."""
    text = " ".join(str(error).split())
    return re.sub(r"^\[[\d:]+\] \S+:\d+: ", "", text)[:500]
