"""The wire format of the Triton model: a generation request to tensors, server-sent events to tokens.

The only module that knows tensor names; they are those of TensorRT-LLM's model `tensorrt_llm`. Not here: I/O, and
OpenAI's format.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from frontend.errors import (
    ContextLengthExceeded,
    EngineFailed,
    EngineHangs,
    EngineUnavailable,
    FrontendError,
    InvalidRequest,
    StartupError,
)
from frontend.generation import Engine, GenerationRequest, LogProbs, TokenChunk

_log = logging.getLogger(__name__)

_REQUIRED_INPUTS = (
    "input_ids",
    "input_lengths",
    "request_output_len",
    "end_id",
    "pad_id",
    "streaming",
    "temperature",
    "runtime_top_p",
    "runtime_top_k",
)

_SEED_NAMES = ("seed", "random_seed")
_MIN_TOKENS_NAMES = ("min_tokens", "min_length")
"""TensorRT-LLM renamed these two inputs after 0.19; the older names come second."""

_OPTIONAL_INPUTS: Mapping[str, Sequence[str]] = {
    "top_k": ("runtime_top_k",),
    "min_p": ("runtime_min_p",),
    "repetition_penalty": ("repetition_penalty",),
    "presence_penalty": ("presence_penalty",),
    "frequency_penalty": ("frequency_penalty",),
    "min_tokens": _MIN_TOKENS_NAMES,
    "seed": _SEED_NAMES,
    "logprobs": ("return_log_probs",),
    "top_logprobs": ("num_top_log_probs",),
    "prompt_logprobs": ("num_prompt_top_log_probs",),
    "logit_bias": ("embedding_bias",),
    "guide": ("guided_decoding_guide",),
}
"""Field of SamplingParams to the names that its input has or had. Sent only if the field is set.

`runtime_min_p` and the two of the most likely tokens are our own inputs of the CPU engine: TensorRT-LLM's model has
none (1.2). Instead of `num_top_log_probs` it has an input for the logits, of which another model computes them."""

_LOGITS_INPUT = "return_generation_logits"
_FOR_OTHERS = frozenset({"logprobs", "top_logprobs"})
"""Fields that the model of alternatives has no input for: it gives the log probabilities with the alternatives."""

_GUIDE_TYPE = "ebnf_grammar"

_ENGINE_ERRORS: Sequence[tuple[str, type[FrontendError], str]] = (
    ("exceeds maximum input length", ContextLengthExceeded, "The messages are longer than the engine can take."),
    ("aximum queue size", EngineUnavailable, "The engine takes no more requests. Please retry shortly."),
    ("shutting down", EngineUnavailable, "The engine is shutting down."),
    ("is not ready", EngineUnavailable, "The engine is not ready."),
    (
        "guided_decoding_guide",
        InvalidRequest,
        "The structured output (response_format, tools, ...) takes more of the engine than one request may.",
    ),
    # Of Triton's Python backend (stub_launcher.cc): the process that it started is frozen or has ended.
    ("is not healthy", EngineHangs, "The engine does not respond. Please retry shortly."),
)
"""Part of an engine's message, error and message for the client. The engine's errors have no codes."""

_CACHE_USE_INPUT, _CACHE_USE_OUTPUT = "return_perf_metrics", "kv_cache_reused_blocks"
"""With this input, TensorRT-LLM from 0.19 on has this output in every response of a stream."""

_LOG_PROB_OUTPUTS = ("token_log_probs", "token_ranks", "top_token_ids", "top_log_probs")
"""In the order of LogProbs. Those of the prompt have `prompt_` in front."""


def read_engine(config: Mapping[str, Any], *, with_cached_tokens: bool = False) -> Engine:
    """The engine that a model's config declares. Raises StartupError if the frontend cannot use it.

    `with_cached_tokens`: responses are to report the cached blocks of their prompt.
    """
    inputs = frozenset(tensor["name"] for tensor in config.get("input", []))
    missing = [name for name in _REQUIRED_INPUTS if name not in inputs]
    if not inputs.intersection(_SEED_NAMES):
        missing.append(_SEED_NAMES[0])
    if missing:
        raise StartupError(f"Triton model {config.get('name')} does not declare the inputs {', '.join(missing)}")
    outputs = frozenset(tensor["name"] for tensor in config.get("output", []))
    if with_cached_tokens and not (_CACHE_USE_INPUT in inputs and _CACHE_USE_OUTPUT in outputs):
        raise StartupError(
            f"enable_prompt_tokens_details: Triton model {config.get('name')} does not report its cached tokens"
            f" (output {_CACHE_USE_OUTPUT} for input {_CACHE_USE_INPUT})"
        )
    _check_scheduler(config)
    engine = Engine(
        max_batch_size=max(1, int(config.get("max_batch_size", 0))),
        max_seq_len=_parameter(config, "max_seq_len"),
        inputs=inputs,
        honours=frozenset(field for field, names in _OPTIONAL_INPUTS.items() if inputs.intersection(names)),
        tokens_per_block=_parameter(config, "tokens_per_block") if with_cached_tokens else None,
        default_max_tokens=_default_max_tokens(config),
    )
    return _with_alternatives(engine, config) if _gathers_logits(config) else engine


def _gathers_logits(config: Mapping[str, Any]) -> bool:
    """Whether the engine was built to return the logits of its tokens."""
    parameter: Mapping[str, str] = config.get("parameters", {}).get("gather_generation_logits", {})
    return parameter.get("string_value") == "true"


def _with_alternatives(engine: Engine, config: Mapping[str, Any]) -> Engine:
    """The engine with the model beside it, whose inputs are the engine's, that computes alternatives of its logits."""
    return replace(
        engine,
        honours=engine.honours | {"top_logprobs"},
        log_probs_model=f"{config['name']}_log_probs",
        max_gathered_tokens=_parameter(config, "max_gathered_tokens"),
    )


def _check_scheduler(config: Mapping[str, Any]) -> None:
    """Raises StartupError for a TensorRT-LLM scheduler that pauses requests.

    A paused request starts again with a new grammar, a new seed and a new count of min_tokens, so a guided answer would
    not be valid (release 1.2: the executor makes a new matcher for it).
    """
    policy = config.get("parameters", {}).get("batch_scheduler_policy", {}).get("string_value", "guaranteed_no_evict")
    if policy != "guaranteed_no_evict":
        raise StartupError(
            f"Triton model {config.get('name')}: batch_scheduler_policy is {policy}; accepted: guaranteed_no_evict,"
            " because guided answers of a paused request are not valid"
        )


def _parameter(config: Mapping[str, Any], key: str) -> int:
    try:
        return int(config["parameters"][key]["string_value"])
    except (KeyError, ValueError):
        raise StartupError(f"Triton model {config.get('name')} has no number as parameter {key}") from None


def _default_max_tokens(config: Mapping[str, Any]) -> int | None:
    """The parameter may be absent."""
    if "default_max_tokens" not in config.get("parameters", {}):
        return None
    if (value := _parameter(config, "default_max_tokens")) < 1:
        raise StartupError(f"Triton model {config.get('name')}: default_max_tokens is {value}; accepted: 1 and more")
    return value


def encode_request(request: GenerationRequest, engine: Engine) -> dict[str, Any]:
    """Tensors by name, as Triton's generate extension takes them: scalars and flat lists.

    The caller has checked that the engine has an input for each field that is set.
    """
    params, end_tokens = request.sampling_params, request.end_tokens
    tensors: dict[str, Any] = {
        "input_ids": request.prompt_token_ids,
        "input_lengths": len(request.prompt_token_ids),
        "request_output_len": params.max_tokens,
        "end_id": -1 if params.ignore_eos else end_tokens.end_id,
        "pad_id": end_tokens.pad_id,
        "streaming": True,
    }
    with_logits = params.has_alternatives and engine.log_probs_model is not None
    if with_logits:
        tensors[_LOGITS_INPUT] = True
    for field, names in _OPTIONAL_INPUTS.items():
        if with_logits and field in _FOR_OTHERS:
            continue
        if field == "min_tokens" and params.ignore_eos:
            # Nothing ends the answer early, and TensorRT-LLM would write to the logit of token -1 (penaltyKernels.cu).
            continue
        if (value := getattr(params, field)) is not None:
            name = next(name for name in names if name in engine.inputs)
            tensors[name] = value
    if params.guide is not None:
        tensors["guided_decoding_guide_type"] = _GUIDE_TYPE
    if engine.tokens_per_block is not None:
        tensors[_CACHE_USE_INPUT] = True
    if params.temperature == 0:
        tensors["runtime_top_k"] = 1
    else:
        # Without top_k and top_p the engine is greedy, whatever the temperature.
        tensors |= {"temperature": params.temperature, "runtime_top_p": params.top_p}
    return tensors


def encode_stop(request_id: str) -> dict[str, Any]:
    """A request to the engine to cancel the one with this id. Triton requires the two lengths of every request."""
    return {"id": request_id, "stop": True, "input_lengths": 1, "request_output_len": 1}


class EventParser:
    """Server-sent events, divided anywhere, to chunks of tokens. `tokens_per_block` is that of the Engine.

    `with_alternatives`: for a request with `top_logprobs` or `prompt_logprobs`. A model may give more alternatives to
    a token than the `num_top` that were asked for; None: it does not.
    """

    def __init__(
        self,
        *,
        with_log_probs: bool,
        with_alternatives: bool = False,
        num_top: int | None = None,
        tokens_per_block: int | None = None,
    ) -> None:
        self._rest = b""
        self._with_log_probs = with_log_probs
        self._with_alternatives = with_alternatives
        self._num_top = num_top
        self._tokens_per_block = tokens_per_block
        self._is_plain = not (with_log_probs or with_alternatives) and tokens_per_block is None
        self._num_log_probs = 0

    def feed(self, data: bytes) -> list[TokenChunk]:
        """The chunks whose events are complete now. Raises a FrontendError for an error event."""
        *events, self._rest = (self._rest + data).split(b"\n\n")
        return [self._decode(event) for event in events if event.startswith(b"data:")]

    def _decode(self, event: bytes) -> TokenChunk:
        """One response of the model. Triton sends a list of one element as a scalar."""
        response = orjson.loads(event[5:])
        if "error" in response:
            raise to_error(str(response["error"]))
        token_ids = _as_list(response["output_ids"])
        if self._is_plain:
            return TokenChunk(token_ids)
        return TokenChunk(
            token_ids,
            self._new_log_probs(response),
            self._num_cached_tokens(response),
            self._top(response) if self._with_alternatives else None,
            _log_probs(response, "prompt_") if self._with_alternatives else None,
        )

    def _new_log_probs(self, response: Mapping[str, Any]) -> list[float]:
        """The log probabilities of the new tokens; a response has those of all tokens so far."""
        if not self._with_log_probs:
            return []
        log_probs = _as_list(response["output_log_probs"])[self._num_log_probs :]
        self._num_log_probs += len(log_probs)
        return log_probs

    def _top(self, response: Mapping[str, Any]) -> LogProbs | None:
        """The log probabilities of this response's tokens with `num_top` alternatives each."""
        found = _log_probs(response, "")
        return found if found is None or self._num_top is None else _first(found, self._num_top)

    def _num_cached_tokens(self, response: Mapping[str, Any]) -> int | None:
        num_blocks = response.get(_CACHE_USE_OUTPUT)
        return None if num_blocks is None or self._tokens_per_block is None else num_blocks * self._tokens_per_block


def _log_probs(response: Mapping[str, Any], prefix: str) -> LogProbs | None:
    """Those of this response's tokens; None if it has none."""
    if prefix + _LOG_PROB_OUTPUTS[0] not in response:
        return None
    return LogProbs(*[_as_list(response[prefix + name]) for name in _LOG_PROB_OUTPUTS])


def _first(log_probs: LogProbs, num_top: int) -> LogProbs:
    """With `num_top` of the alternatives to each token, which come in descending order."""
    given = len(log_probs.top_token_ids) // max(len(log_probs.ranks), 1)
    wanted = [place for place in range(len(log_probs.top_token_ids)) if place % given < num_top]
    return log_probs._replace(
        top_token_ids=[log_probs.top_token_ids[place] for place in wanted],
        top_log_probs=[log_probs.top_log_probs[place] for place in wanted],
    )


def _as_list(tensor: Any) -> list[Any]:
    return tensor if isinstance(tensor, list) else [tensor]


class ErrorParser:
    """The body of a response whose status is not 200."""

    def __init__(self, status: int) -> None:
        self._status = status

    def feed(self, data: bytes) -> list[TokenChunk]:
        """Raises the FrontendError for the response. Its first piece has the complete message."""
        raise to_error(f"{self._status} {data.decode(errors='replace')}")


def to_error(engine_message: str) -> FrontendError:
    """The error for an engine's message, which is only logged, as it may contain paths and addresses."""
    _log.error("the engine says: %s", engine_message)
    for part, error, message in _ENGINE_ERRORS:
        if part in engine_message:
            return error(message)
    return EngineFailed("The engine could not complete the request.")
