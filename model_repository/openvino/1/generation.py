"""One request of the `tensorrt_llm` contract in OpenVINO GenAI's terms. Pure: arrays in, a checked value out."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai
from log_probs import MAX_TOP
from numpy.typing import NDArray

Inputs = Mapping[str, NDArray[Any]]

GUIDE_FIELDS = {"json": "json_schema", "json_schema": "json_schema", "regex": "regex", "ebnf_grammar": "grammar"}
"""TensorRT-LLM's types of guides, and the field of GenAI's StructuredOutputConfig for each."""
NON_ASCII_BYTES = (
    r"([\xc2-\xdf] [\x80-\xbf] | [\xe0\xe0] [\xa0-\xbf] [\x80-\xbf] | [\xe1-\xec\xee\xef] [\x80-\xbf] [\x80-\xbf]"
    r" | [\xed\xed] [\x80-\x9f] [\x80-\xbf] | [\xf0\xf0] [\x90-\xbf] [\x80-\xbf] [\x80-\xbf]"
    r" | [\xf1-\xf3] [\x80-\xbf] [\x80-\xbf] [\x80-\xbf] | [\xf4\xf4] [\x80-\x8f] [\x80-\xbf] [\x80-\xbf])"
)
"""One character outside ASCII as TensorRT-LLM's xgrammar reads it: byte by byte. The frontend writes it in this way."""
NON_ASCII = (
    r"[\u0080-\u07ff\u0800-\u0fff\u1000-\ucfff\ud000-\ud7ff\ue000-\uffff"
    r"\U00010000-\U0003ffff\U00040000-\U000fffff\U00100000-\U0010ffff]"
)
"""The same for GenAI's xgrammar, where a class holds code points.

A range for each row of the Unicode Standard's table 3-7: longer ones come to hold overlong forms, or leave characters
out.
"""
ANY_JSON = "{}"
"""The JSON schema that everything satisfies."""


_MOST_MIN_P = float(np.nextafter(np.float32(1), np.float32(0)))
"""GenAI accepts less than 1. The most likely token is all that is left, as with 1."""


class InvalidRequest(Exception):
    """This request cannot be served; the message says which tensor, what was found, what is accepted."""


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What every request is checked against, in tokens."""

    max_seq_len: int
    vocab_size: int
    exclude_input_in_output: bool


@dataclass(frozen=True, slots=True, eq=False)
class GenerationRequest:
    """A checked request. `end_id` is None if the end of sequence is ignored.

    `num_top_log_probs` is how many of the most likely tokens are wanted beside each of the answer, and
    `num_prompt_top_log_probs` beside each of the prompt; None: no log probabilities from scorer.py.
    """

    prompt_token_ids: NDArray[np.int64]
    generation_config: genai.GenerationConfig
    end_id: int | None
    streaming: bool
    echo: bool
    return_log_probs: bool
    return_perf_metrics: bool
    num_top_log_probs: int | None
    num_prompt_top_log_probs: int | None
    arrival_time_ns: int = field(default_factory=time.monotonic_ns)

    @property
    def reserved_tokens(self) -> int:
        """What it may come to hold in the KV cache: its prompt and its longest answer."""
        return int(self.prompt_token_ids.size + self.generation_config.max_new_tokens)

    @property
    def is_scored(self) -> bool:
        """Whether the answer needs scorer.py."""
        return self.num_top_log_probs is not None or self.num_prompt_top_log_probs is not None


def decode_request(inputs: Inputs, limits: EngineLimits) -> GenerationRequest:
    """Check the tensors of one request. Raises InvalidRequest."""
    if "embedding_bias" in inputs:
        raise InvalidRequest("embedding_bias is not honoured by this engine; accepted: none")
    prompt_token_ids = _prompt_token_ids(inputs, limits)
    end_id = _scalar(inputs, "end_id", -1)
    if not -1 <= end_id < limits.vocab_size:
        raise InvalidRequest(f"end_id is {end_id}; accepted: -1 to {limits.vocab_size - 1}")
    request = GenerationRequest(
        prompt_token_ids=prompt_token_ids,
        generation_config=_generation_config(inputs, limits.max_seq_len - prompt_token_ids.size, end_id),
        end_id=None if end_id == -1 else end_id,
        streaming=bool(_scalar(inputs, "streaming", False)),
        echo=not _scalar(inputs, "exclude_input_in_output", limits.exclude_input_in_output),
        return_log_probs=bool(_scalar(inputs, "return_log_probs", False)),
        return_perf_metrics=bool(_scalar(inputs, "return_perf_metrics", False)),
        num_top_log_probs=_num_top(inputs, "num_top_log_probs"),
        num_prompt_top_log_probs=_num_top(inputs, "num_prompt_top_log_probs"),
    )
    if request.is_scored and (request.return_log_probs or not request.streaming):
        raise InvalidRequest(
            "num_top_log_probs and num_prompt_top_log_probs are accepted with streaming and without return_log_probs"
        )
    return request


def _prompt_token_ids(inputs: Inputs, limits: EngineLimits) -> NDArray[np.int64]:
    ids = inputs.get("input_ids", np.empty((1, 0), np.int32))
    if ids.shape[0] != 1:
        raise InvalidRequest(f"input_ids holds {ids.shape[0]} prompts; accepted: one per request")
    if ids.size == 0:
        raise InvalidRequest("input_ids is empty; accepted: at least one token")
    if _scalar(inputs, "input_lengths", -1) != ids.size:
        raise InvalidRequest(f"input_lengths is {_scalar(inputs, 'input_lengths', -1)}; accepted: {ids.size}")
    if ids.min() < 0 or ids.max() >= limits.vocab_size:
        raise InvalidRequest(f"input_ids holds {ids.min()} to {ids.max()}; accepted: 0 to {limits.vocab_size - 1}")
    if ids.size >= limits.max_seq_len:
        # TensorRT-LLM's message, which a client may match on.
        raise InvalidRequest(f"Prompt length ({ids.size}) exceeds maximum input length ({limits.max_seq_len - 1})")
    return ids.reshape(1, -1).astype(np.int64)


def _generation_config(inputs: Inputs, room: int, end_id: int) -> genai.GenerationConfig:
    config = genai.GenerationConfig()
    config.apply_chat_template = False
    # Like TensorRT-LLM, cut to the room in the context without an error.
    config.max_new_tokens = min(_number(inputs, "request_output_len", 0, 1), room)
    config.min_new_tokens = min(_number(inputs, "min_tokens", 0, 0), config.max_new_tokens)
    config.ignore_eos = end_id == -1
    config.stop_token_ids = set() if end_id == -1 else {end_id}
    config.logprobs = 1 if _scalar(inputs, "return_log_probs", False) else 0
    _set_sampling(config, inputs)
    _set_guide(config, inputs)
    try:
        config.validate()
    except RuntimeError as error:
        raise InvalidRequest(f"sampling parameters: {_last_line(error)}") from error
    return config


def _set_sampling(config: genai.GenerationConfig, inputs: Inputs) -> None:
    """Without top_k and top_p TensorRT-LLM is greedy, whatever the temperature; and the seed is 0 unless given."""
    top_k, top_p = _number(inputs, "runtime_top_k", 0, 0), _scalar(inputs, "runtime_top_p", 0.0)
    temperature, min_p = _number(inputs, "temperature", 1.0, 0.0), _number(inputs, "runtime_min_p", 0.0, 0.0)
    config.do_sample = top_k != 1 and (top_k > 1 or top_p > 0.0) and temperature > 0.0
    if config.do_sample:
        config.temperature = temperature
        config.top_p = min(top_p, 1.0) if top_p > 0.0 else 1.0
        if top_k:
            config.top_k = top_k
        config.min_p = min(min_p, _MOST_MIN_P)
        config.rng_seed = _scalar(inputs, "seed", 0)
    config.repetition_penalty = _number(inputs, "repetition_penalty", 1.0, 0.0)
    config.presence_penalty = _scalar(inputs, "presence_penalty", 0.0)
    config.frequency_penalty = _scalar(inputs, "frequency_penalty", 0.0)


def _set_guide(config: genai.GenerationConfig, inputs: Inputs) -> None:
    guide_type = _text(inputs, "guided_decoding_guide_type")
    if not guide_type:
        return
    if guide_type not in GUIDE_FIELDS:
        raise InvalidRequest(f"guided_decoding_guide_type is {guide_type!r}; accepted: {', '.join(GUIDE_FIELDS)}")
    guide = ANY_JSON if guide_type == "json" else _text(inputs, "guided_decoding_guide")
    if guide_type == "ebnf_grammar":
        guide = guide.replace(NON_ASCII_BYTES, NON_ASCII)
    if not guide:
        raise InvalidRequest(f"guided_decoding_guide is missing; accepted: a {guide_type}")
    config.structured_output_config = genai.StructuredOutputConfig(**{GUIDE_FIELDS[guide_type]: guide})


def prompt_tensor(request: GenerationRequest) -> ov.Tensor:
    """int64 [1, N], as `add_request` takes it."""
    return ov.Tensor(request.prompt_token_ids)


def _scalar(inputs: Inputs, name: str, default: Any) -> Any:
    return inputs[name].reshape(-1)[0].item() if name in inputs else default


def _number(inputs: Inputs, name: str, default: Any, least: Any) -> Any:
    value = _scalar(inputs, name, default)
    if not value >= least:
        raise InvalidRequest(f"{name} is {value}; accepted: at least {least}")
    return value


def _num_top(inputs: Inputs, name: str) -> int | None:
    if name not in inputs:
        return None
    count = int(_scalar(inputs, name, 0))
    if not 0 <= count <= MAX_TOP:
        raise InvalidRequest(f"{name} is {count}; accepted: 0 to {MAX_TOP}")
    return count


def _text(inputs: Inputs, name: str) -> str:
    """A BYTES tensor of one element; empty when absent."""
    if name not in inputs:
        return ""
    try:
        return str(inputs[name].reshape(-1)[0], "utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest(f"{name} is not UTF-8") from None


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
