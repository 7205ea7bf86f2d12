"""Stands for TensorRT-LLM's Triton backend and its executor: what it loads, generates, answers and fails on.

The model behind it knows three prompts; of any other it makes token ids by a formula, the same every time. Grammars are
compiled and followed by xgrammar itself, in the release of TensorRT-LLM 1.2. Two variables of the environment change
what it does: DOUBLE_FAULT is one thing that is wrong, DOUBLE_IGNORES an input that has no effect.

Sources, TensorRT-LLM 1.2: model_instance_state.cc and utils.cc of the backend, executorImpl.cpp, guidedDecoder.cpp,
penaltyKernels.cu.
"""

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tritonclient.grpc.model_config_pb2 import ModelConfig

from frontend.guided_decoding.xgrammar import GrammarMatcher, load_core
from tests.doubles.triton_core import LoadError, Request

FAULT = os.environ.get("DOUBLE_FAULT")
IGNORED = os.environ.get("DOUBLE_IGNORES")
PERF_METRICS: Mapping[str, tuple[str, int | float]] = {
    "kv_cache_alloc_new_blocks": ("TYPE_INT32", 1),
    "kv_cache_reused_blocks": ("TYPE_INT32", 0),
    "kv_cache_alloc_total_blocks": ("TYPE_INT32", 1),
    "arrival_time_ns": ("TYPE_INT64", 1),
    "first_scheduled_time_ns": ("TYPE_INT64", 2),
    "first_token_time_ns": ("TYPE_INT64", 3),
    "last_token_time_ns": ("TYPE_INT64", 4),
    "acceptance_rate": ("TYPE_FP32", 0.0),
    "total_accepted_draft_tokens": ("TYPE_INT32", 0),
    "total_draft_tokens": ("TYPE_INT32", 0),
}
"""What return_perf_metrics adds to every response, declared or not, with types, and values of this double."""
OTHER_OUTPUTS: Mapping[str, str] = {
    "output_ids": "TYPE_INT32",
    "sequence_length": "TYPE_INT32",
    "cum_log_probs": "TYPE_FP32",
    "output_log_probs": "TYPE_FP32",
    "generation_logits": "TYPE_FP32",
}
ANSWERS: Mapping[str, str] = {
    "What is the capital of France?": "The capital of France is Paris.",
    "What is a house?": (
        "A house is a building that people live in. It has a roof, walls, windows and doors, and it keeps out the rain"
        " and the wind. Most houses have several rooms, such as a kitchen, a bathroom and one or more bedrooms. Many"
        " families own the house that they live in, while others pay rent for it every month. Some houses stand alone."
    ),
    "What was the name of the ship?": "The name of the ship was Diana.",
}
"""Part of a prompt, and what this model answers to it."""
_STEP_S = 0.001
_LARGE_BIAS = 50.0
_GUIDES = ("json", "json_schema", "regex", "ebnf_grammar")


class BackendError(Exception):
    """A request fails. If it was to begin, Triton answers with status 500."""


class StepError(Exception):
    """A step of the engine failed: all requests in it fail."""


@dataclass
class _Active:
    """A request in the executor. `failure` is set when a step fails, `cancelled` by another request with `stop`."""

    request_id: str
    failure: str | None = None
    cancelled: bool = False


@dataclass
class Backend:
    """A loaded engine. `generate` may be called by several threads at a time."""

    config: ModelConfig
    tokenizer: Tokenizer
    vocabulary: Mapping[str, Any]
    vocab_size: int
    max_seq_len: int
    exclude_input: bool
    gathers_logits: bool = False
    _active: dict[int, _Active] = field(default_factory=dict)
    _seen: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def without_requests(self) -> "Backend":
        """The same engine, loaded once more."""
        return replace(self, _active={}, _seen=Counter(), _lock=threading.Lock())

    @property
    def num_active(self) -> int:
        """How many requests have a slot."""
        return len(self._active)

    def generate(self, request: Request) -> Iterator[dict[str, Any]]:
        """The responses: outputs by name. Raises BackendError. Closing it cancels the request."""
        if request.tensors.get("stop"):
            yield self._stop(request)
            return
        job = self._job(request)
        entry = _Active(request.request_id)
        with self._lock:
            self._active[id(entry)] = entry
        try:
            yield from self._responses(job, entry)
        except GeneratorExit:
            if FAULT == "keeps_cancelled":
                time.sleep(600)
        except StepError as error:
            self._fail_all(str(error))
            raise BackendError(self._failure(entry)) from error
        finally:
            with self._lock:
                del self._active[id(entry)]

    def _stop(self, request: Request) -> dict[str, Any]:
        """Cancel the requests with the same id; the answer has no outputs."""
        if not request.request_id:
            raise BackendError("Trying to stop a request but request ID is not provided")
        with self._lock:
            for entry in self._active.values():
                entry.cancelled |= entry.request_id == request.request_id and IGNORED != "stop"
        return {}

    def _fail_all(self, message: str) -> None:
        with self._lock:
            for entry in self._active.values():
                entry.failure = entry.failure or f"Encountered an error in forwardAsync function: {message}"

    def _failure(self, entry: _Active) -> str:
        return f"Executor failed process requestId 1 due to the following error: {entry.failure}"

    def _responses(self, job: "_Job", entry: _Active) -> Iterator[dict[str, Any]]:
        sent: list[int] = []
        for position in range(job.num_tokens):
            time.sleep(_STEP_S)
            if entry.failure:
                raise BackendError(self._failure(entry))
            token_id, log_prob = job.step(position)
            if entry.cancelled or (token_id == job.end_id and token_id >= 0):
                break
            job.token_ids.append(token_id)
            job.log_probs.append(log_prob)
            if job.streaming and position + 1 < job.num_tokens:
                yield self._response(job, job.token_ids[len(sent) :])
                sent = list(job.token_ids)
        yield self._response(job, job.token_ids[len(sent) :] if job.streaming else job.echo + job.token_ids)

    def _response(self, job: "_Job", token_ids: list[int]) -> dict[str, Any]:
        """One response, with what Triton does to outputs that are not declared."""
        declared = {output.name for output in self.config.output}
        for name in ("output_ids", "sequence_length"):
            if name not in declared:
                raise BackendError(
                    f"Error encountered while populating response: {name} tensor must be present in list of output"
                    " tensors"
                )
        outputs: dict[str, Any] = {"output_ids": token_ids, "sequence_length": [len(token_ids)]}
        if job.return_log_probs:
            log_probs = {"output_log_probs": list(job.log_probs), "cum_log_probs": [sum(job.log_probs)]}
            outputs |= {name: values for name, values in log_probs.items() if name in declared}
        if job.return_generation_logits and "generation_logits" in declared:
            outputs["generation_logits"] = job.logits_of(token_ids)
        if job.return_perf_metrics:
            for name, (_, value) in PERF_METRICS.items():
                if name not in declared:
                    raise BackendError(
                        "Error encountered while populating response: Could not get response output for output tensor"
                        f" {name}: unexpected inference output '{name}' for model '{self.config.name}'"
                    )
                outputs[name] = [value]
        return outputs

    def _job(self, request: Request) -> "_Job":
        """The request, checked as the executor does. Raises BackendError."""
        tensors = {name: value for name, value in request.tensors.items() if name != IGNORED}
        if "input_ids" not in tensors:
            raise BackendError("input_ids or encoder_input_features is not present in the request.")
        if "request_output_len" not in tensors:
            raise BackendError("request_output_len is not present in the request")
        prompt = tensors["input_ids"] if isinstance(tensors["input_ids"], list) else [tensors["input_ids"]]
        for holds, what in self._requirements(tensors, prompt):
            if not holds:
                raise BackendError(f"[TensorRT-LLM][ERROR] Assertion failed: {what}")
        if len(prompt) >= self.max_seq_len:
            raise BackendError(
                "Executor failed process requestId 1 due to the following error: Encountered an error when fetching new"
                f" request: Prompt length ({len(prompt)}) exceeds maximum input length ({self.max_seq_len - 1}). Set"
                " log level to info and check TRTGptModel logs for how maximum input length is set"
            )
        key = f"{prompt} {tensors.get('end_id')} {tensors['request_output_len']}"
        self._seen[key] += 1
        return _Job(self, tensors, prompt, self._seen[key])

    def _requirements(self, tensors: Mapping[str, Any], prompt: list[int]) -> Iterator[tuple[bool, str]]:
        yield bool(prompt), "!inputTokenIds.empty()"
        yield tensors["request_output_len"] > 0, "maxNewTokens > 0"
        yield -1 <= tensors.get("end_id", -1) < self.vocab_size, "EndId is not within acceptable range"
        yield tensors.get("temperature", 1.0) >= 0, "temperature >= 0"
        yield tensors.get("runtime_top_k", 1) >= 0, "topK >= 0"
        yield tensors.get("runtime_top_p", 1.0) <= 1, "topP <= 1"
        yield tensors.get("repetition_penalty", 1.0) > 0, "repetitionPenalty > 0"
        yield tensors.get("min_tokens", 0) >= 0, "minTokens >= 0"
        streaming = bool(tensors.get("streaming"))
        decoupled = self.config.model_transaction_policy.decoupled
        yield not streaming or decoupled, "Streaming is only supported if model is deployed using decoupled mode."
        gathers = self.gathers_logits or not tensors.get("return_generation_logits")
        yield gathers, "To return generation logits, gather_generation_logits must be enabled in ExecutorConfig"

    def answer_to(self, prompt: list[int]) -> list[int] | None:
        """The ids of the known answer to a prompt."""
        text = self.tokenizer.decode(prompt)
        known = [answer for part, answer in ANSWERS.items() if part in text]
        if not known or FAULT == "no_words":
            return None
        if FAULT == "wrong_answers":
            known = [ANSWERS["What is a house?"] if "house" not in text else ANSWERS["What is the capital of France?"]]
        if FAULT == "repeats":
            known = ["The house the capital the ship Paris Diana" + " the house" * 100]
        ids: list[int] = self.tokenizer.encode(known[0], add_special_tokens=False).ids
        return ids

    def matcher(self, guide: str) -> GrammarMatcher:
        """Raises RuntimeError for a grammar that does not parse: in the middle of a step, as in the real executor."""
        core: Any = load_core()
        metadata = json.loads(core.TokenizerInfo._detect_metadata_from_hf(self.vocabulary["tokenizer_str"]))
        info = core.TokenizerInfo(
            self.vocabulary["encoded_vocab"],
            metadata["vocab_type"],
            self.vocab_size,
            self.vocabulary["stop_token_ids"],
            metadata["add_prefix_space"],
        )
        compiled = core.GrammarCompiler(info, 1, False, -1).compile_grammar(core.Grammar.from_ebnf(guide, "root"))
        matcher: GrammarMatcher = core.GrammarMatcher(compiled, None, False, 0)
        return matcher


class _Job:
    """One request in the engine: chooses the next token at each step."""

    def __init__(self, backend: Backend, tensors: Mapping[str, Any], prompt: list[int], number: int) -> None:
        self.num_tokens = min(tensors["request_output_len"], backend.max_seq_len - len(prompt))
        self.end_id: int = tensors.get("end_id", -1)
        self.streaming = bool(tensors.get("streaming"))
        self.echo = [] if tensors.get("exclude_input_in_output", backend.exclude_input) else prompt
        self.return_log_probs = bool(tensors.get("return_log_probs"))
        self.return_perf_metrics = bool(tensors.get("return_perf_metrics"))
        self.return_generation_logits = bool(tensors.get("return_generation_logits"))
        self.token_ids: list[int] = []
        self.log_probs: list[float] = []
        self._backend = backend
        self._tensors = tensors
        self._bias = np.array(tensors["embedding_bias"]) if "embedding_bias" in tensors else None
        self._start = sum(prompt)
        self._answer = backend.answer_to(prompt)
        self._number = number
        self._matcher: GrammarMatcher | None = None

    def logits_of(self, token_ids: list[int]) -> list[float]:
        """Those of the last tokens, one after the other: each gives its token the log probability, others are alike."""
        rows = np.zeros((len(token_ids), self._backend.vocab_size), np.float32)
        log_probs = self.log_probs[len(self.log_probs) - len(token_ids) :]
        for row, token_id, log_prob in zip(rows, token_ids, log_probs, strict=True):
            probability = np.exp(log_prob)
            row[token_id] = np.log(probability * (len(row) - 1) / (1 - probability))
        return list(np.roll(rows, FAULT == "other_logits", axis=1).reshape(-1).tolist())

    def step(self, position: int) -> tuple[int, float]:
        """The token at a position, which may be the end token, and its log probability. Raises StepError."""
        token_id, log_prob = self._faulty(position, self._own(position), -6.0 if FAULT == "unlikely" else -0.5)
        if self._bias is not None:
            if self._bias.shape != (self._backend.vocab_size,):
                raise StepError("Assertion failed: embeddingBias.size(0) == vocabSize")
            token_id = int(self._bias.argmax()) if self._bias.max() > _LARGE_BIAS else token_id
        if token_id == self.end_id and position < self._tensors.get("min_tokens", 0):
            token_id = self._formula(position)
        if self._tensors.get("guided_decoding_guide_type") in _GUIDES:
            token_id = self._guided(position, token_id)
        return token_id, log_prob

    def _own(self, position: int) -> int:
        """What the model would write: the end of a known answer is the end token, after which it goes on."""
        if self._answer is None or position > len(self._answer):
            return self._formula(position)
        if position == len(self._answer):
            return int(self._backend.vocabulary["stop_token_ids"][0])
        return self._answer[position]

    def _formula(self, position: int) -> int:
        return (self._start + 7 * position) % (self._backend.vocab_size - 1000) + 1000

    def _faulty(self, position: int, token_id: int, log_prob: float) -> tuple[int, float]:
        vocab_size, number = self._backend.vocab_size, self._number
        if FAULT == "token_out_of_range":
            token_id = vocab_size
        if FAULT == "not_repeatable" and position == 10:
            token_id, log_prob = (token_id + number) % vocab_size, -1.5 * number
        if FAULT == "near_tie" and position >= 10:
            token_id, log_prob = (token_id + number) % vocab_size, -0.5 - 0.01 * number
        if FAULT == "near_tie" and position > 10:
            log_prob = -2.0 * number  # another text from there on
        return token_id, float("nan") if FAULT == "not_finite" else log_prob

    def _guided(self, position: int, wanted: int) -> int:
        """The wanted token if the grammar allows it, else the first allowed one; the worst of several stop tokens."""
        try:
            if self._matcher is None:
                self._matcher = self._backend.matcher(self._tensors.get("guided_decoding_guide", ""))
            else:
                self._matcher.accept_token(self.token_ids[-1], False)
            bitmask = np.full((1, -(-self._backend.vocab_size // 32)), -1, np.int32)
            self._matcher.fill_next_token_bitmask(bitmask, 0, False)
        except RuntimeError as error:
            raise StepError(str(error)) from error
        allowed = np.flatnonzero(np.unpackbits(bitmask.view(np.uint8), bitorder="little"))
        if wanted in allowed:
            return wanted
        stop_tokens = self._backend.vocabulary["stop_token_ids"]
        text = [int(token_id) for token_id in allowed if token_id not in stop_tokens]
        worst = [int(token_id) for token_id in allowed if token_id != self.end_id]
        return (text or worst or [self.end_id])[0]


def load(config: ModelConfig) -> Backend:
    """Raises LoadError for an engine or a config that the backend does not load."""
    if config.backend != "tensorrtllm":
        raise LoadError(f"Invalid argument: unable to find backend library for backend '{config.backend}'")
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    if parameters.get("gpt_model_type") not in ("V1", "v1", "inflight_batching", "inflight_fused_batching"):
        raise _instance_error("Invalid gpt_model_type. Must be v1/inflight_batching/inflight_fused_batching.")
    vocabulary = _vocabulary(parameters)
    engine_dir = Path(parameters.get("gpt_model_path", ""))
    engine = _engine_config(engine_dir)
    world_size = engine["pretrained_config"]["mapping"]["world_size"]
    if world_size != int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1")):
        raise _instance_error(f"mpiSize == {world_size}: one process for each rank")
    rank = engine_dir / f"rank{os.environ.get('OMPI_COMM_WORLD_RANK', '0')}.engine"
    if not rank.is_file() or not rank.stat().st_size:
        raise _instance_error(f"Error opening engine file: {rank}")
    return Backend(
        config=config,
        tokenizer=Tokenizer.from_str(vocabulary["tokenizer_str"]),
        vocabulary=vocabulary,
        vocab_size=engine["pretrained_config"]["vocab_size"],
        max_seq_len=engine["build_config"]["max_seq_len"],
        exclude_input=parameters.get("exclude_input_in_output") == "true",
        gathers_logits=engine["build_config"].get("gather_generation_logits", False),
    )


def _vocabulary(parameters: Mapping[str, str]) -> Mapping[str, Any]:
    for name in ("tokenizer_dir", "xgrammar_tokenizer_info_path", "guided_decoding_backend"):
        if name not in parameters:
            raise _instance_error(f"Cannot find parameter with name: {name}")
    if parameters["guided_decoding_backend"] != "xgrammar":
        raise _instance_error("Guided decoding is currently supported with 'xgrammar' backend.")
    info = Path(parameters["xgrammar_tokenizer_info_path"])
    if not info.exists():
        raise _instance_error(f"Xgrammar's tokenizer info path at {info} does not exist.")
    vocabulary: Mapping[str, Any] = json.loads(info.read_text())
    for name in ("encoded_vocab", "tokenizer_str", "stop_token_ids"):
        if name not in vocabulary:
            raise _instance_error(f"[json.exception.type_error.302] type must not be null: {name}")
    return vocabulary


def _engine_config(engine_dir: Path) -> dict[str, Any]:
    if not engine_dir.is_dir():
        raise _instance_error("Both encoder and decoder model paths are empty")
    try:
        config: dict[str, Any] = json.loads((engine_dir / "config.json").read_text())
    except (OSError, ValueError):
        raise _instance_error(f"File does not exist: {engine_dir / 'config.json'}") from None
    return config


def _instance_error(message: str) -> LoadError:
    return LoadError(f"Internal: unexpected error when creating modelInstanceState: {message}")
