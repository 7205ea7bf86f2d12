"""A request with each optional input that the served config.pbtxt declares, and a guided one to its end."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from build_engine.errors import EngineError

from .answers import HOUSE
from .client import Answer, as_list
from .logits import LOGITS
from .model import Model, check_complete

PERF_METRICS = (
    "kv_cache_alloc_new_blocks",
    "kv_cache_reused_blocks",
    "kv_cache_alloc_total_blocks",
    "arrival_time_ns",
    "first_scheduled_time_ns",
    "first_token_time_ns",
    "last_token_time_ns",
    "acceptance_rate",
    "total_accepted_draft_tokens",
    "total_draft_tokens",
)
"""Outputs of TensorRT-LLM 1.2 with return_perf_metrics, in every response."""
_IN_EVERY_REQUEST = frozenset({"input_ids", "end_id", "pad_id", "streaming", "runtime_top_k"})
GUIDE = frozenset({"guided_decoding_guide", "guided_decoding_guide_type"})
STOP = "stop"
_ELSEWHERE = GUIDE | {STOP, LOGITS}
"""Tried by `check_guided`, cancel.py and logits.py."""
_NUM_TOKENS = 16
_MIN_TOKENS = 8
_LARGE_BIAS = 100.0
"""Added to a logit, it decides: the logits of a model differ by tens at most."""
_GRAMMAR, _GUIDED_TEXTS = 'root ::= "yes" | "no"', ("yes", "no")


@dataclass(frozen=True, slots=True)
class _Probe:
    """Optional inputs to send together, and a check of the answer, which raises EngineError."""

    inputs: Mapping[str, Any]
    check: Callable[[Answer], None]


def check_inputs(model: Model) -> Iterator[str]:
    """Lines for the log. Raises EngineError for an input that is refused, or that lacks a certain effect."""
    tried = set(_IN_EVERY_REQUEST)
    for probe in _probes(model):
        if probe.inputs.keys() - {"end_id", "streaming"} <= model.optional:
            _try(model, probe)
            tried |= probe.inputs.keys()
    yield f"answered with each input: {', '.join(sorted(tried & model.optional))}"
    if untried := model.optional - tried - _ELSEWHERE:
        yield f"inputs that were not tried: {', '.join(sorted(untried))}"


def _try(model: Model, probe: _Probe) -> None:
    try:
        probe.check(model.generate(model.request(HOUSE.text, _NUM_TOKENS, **probe.inputs)))
    except EngineError as error:
        raise EngineError(f"{' and '.join(probe.inputs)}: {error}") from error


def _probes(model: Model) -> list[_Probe]:
    """Any complete answer will do where the effect is not known: with sampling and penalties."""
    prompt = model.encode(HOUSE.text)
    end_id, wanted = model.end_tokens.end_id, prompt[-2]
    complete = partial(check_complete, num_tokens=_NUM_TOKENS)
    return [
        _Probe({"temperature": 0.8, "runtime_top_p": 0.9, "runtime_top_k": 0, "seed": 2**63}, complete),
        _Probe({"temperature": 0.8, "runtime_top_k": 40, "seed": 7}, complete),
        _Probe({"repetition_penalty": 1.1}, complete),
        _Probe({"presence_penalty": 0.5}, complete),
        _Probe({"frequency_penalty": 0.5}, complete),
        _Probe({"embedding_bias": _bias(model, wanted)}, partial(_check_biased, wanted)),
        _Probe({"embedding_bias": _bias(model, end_id), "end_id": end_id}, partial(_check_ended, 0)),
        _Probe(
            {"min_tokens": _MIN_TOKENS, "embedding_bias": _bias(model, end_id), "end_id": end_id},
            partial(_check_ended, _MIN_TOKENS),
        ),
        _Probe({"return_log_probs": True}, _check_log_probs),
        _Probe({"return_perf_metrics": True}, _check_perf_metrics),
        _Probe({"exclude_input_in_output": False, "streaming": False}, partial(_check_echo, prompt)),
    ]


def _bias(model: Model, token_id: int) -> list[float]:
    """One value for each token of the vocabulary: with any other number the engine fails all its requests."""
    bias = [0.0] * model.vocab_size
    bias[token_id] = _LARGE_BIAS
    return bias


def _check_biased(token_id: int, answer: Answer) -> None:
    check_complete(answer, _NUM_TOKENS)
    if set(answer.token_ids) != {token_id}:
        raise EngineError(f"a bias of {_LARGE_BIAS:g} for token {token_id} gave {answer.token_ids}; accepted: it alone")


def _check_ended(min_tokens: int, answer: Answer) -> None:
    if not min_tokens <= len(answer.token_ids) < _NUM_TOKENS:
        raise EngineError(
            f"with a bias of {_LARGE_BIAS:g} for the end token the engine generated {len(answer.token_ids)} tokens;"
            f" accepted: {min_tokens} to {_NUM_TOKENS - 1}"
        )


def _check_log_probs(answer: Answer) -> None:
    """The frontend takes those of the new tokens off the end, so each response must have those of all tokens so far."""
    num_tokens = 0
    for event in answer.events:
        num_tokens += len(as_list(event.get("output_ids", [])))
        num_log_probs = len(as_list(event.get("output_log_probs", [])))
        if num_log_probs != num_tokens:
            raise EngineError(f"the engine gave {num_log_probs} log probabilities for {num_tokens} tokens")
    check_complete(answer, _NUM_TOKENS)


def _check_perf_metrics(answer: Answer) -> None:
    for event in answer.events:
        if missing := [name for name in PERF_METRICS if not isinstance(event.get(name), int | float)]:
            raise EngineError(f"a response is without {', '.join(missing)}")
    check_complete(answer, _NUM_TOKENS)


def _check_echo(prompt: list[int], answer: Answer) -> None:
    if answer.token_ids[: len(prompt)] != prompt or len(answer.token_ids) != len(prompt) + _NUM_TOKENS:
        raise EngineError(f"the engine answered {answer.token_ids}; accepted: the prompt and {_NUM_TOKENS} tokens")


def check_guided(model: Model) -> Iterator[str]:
    """Lines for the log. Raises EngineError for an answer that is not of the grammar or does not end where it ends.

    The engine fails all its requests if the end token is not the one that its grammars end with.
    """
    if not model.optional >= GUIDE:
        yield "guided decoding is not tried: config.pbtxt does not declare its inputs"
        return
    guide = {"guided_decoding_guide_type": "ebnf_grammar", "guided_decoding_guide": _GRAMMAR}
    answer = model.generate(model.request(HOUSE.text, _NUM_TOKENS, end_id=model.end_tokens.end_id, **guide))
    text = model.decode(answer.token_ids).strip()
    if text not in _GUIDED_TEXTS:
        raise EngineError(f"the engine answered {text!r}; accepted: 'yes' or 'no', as the grammar {_GRAMMAR} has it")
    yield f"guided decoding: {text!r}, ended by the grammar"
