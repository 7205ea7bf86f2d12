"""Sampling fields of a body to SamplingParams, for every endpoint that generates. Pure.

Every field is honoured or refused by name; none is dropped.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

from frontend.errors import ContextLengthExceeded, InvalidRequest, UnsupportedParameter
from frontend.generation import Engine, SamplingDefaults, SamplingParams

from .fields import SamplingFields

DEFAULT_TEMPERATURE = 0.7
"""vLLM 0.4's default for chat, which clients of a vLLM server rely on; for a checkpoint that names none."""

AnySampling = TypeVar("AnySampling", bound=SamplingFields)

_GREEDY_BELOW = 1e-5
"""vLLM's threshold: a lower temperature is greedy."""

ENGINE_DEPENDENT: Sequence[str] = (
    "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "min_tokens", "logprobs",
    "top_logprobs", "prompt_logprobs", "logit_bias",
)  # fmt: skip
"""Fields of SamplingParams that an engine may have no input for; `guide` is checked in structured_output.py."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedLogprobs:
    """The log probabilities that a body asks for: of the answer's tokens, of so many of the most likely tokens in the
    place of each, and of the prompt's tokens with so many; None: not of the prompt.
    """

    logprobs: bool = False
    top_logprobs: int = 0
    prompt_logprobs: int | None = None

    @property
    def needs_alternatives(self) -> bool:
        """Whether more is wanted than the log probabilities of chosen tokens."""
        return self.prompt_logprobs is not None or (self.logprobs and self.top_logprobs > 0)


NO_LOGPROBS = WantedLogprobs()


def with_defaults(body: AnySampling, defaults: SamplingDefaults) -> AnySampling:
    """The body with the checkpoint's default for each field that it leaves out.

    A body that names temperature 0 stays as it is: it asks for the most likely tokens, which a penalty would change.
    """
    if body.temperature is not None and body.temperature < _GREEDY_BELOW:
        return body
    named = {field.name: getattr(defaults, field.name) for field in fields(defaults)}
    absent = {name: value for name, value in named.items() if value is not None and getattr(body, name) is None}
    return body.model_copy(update=absent) if absent else body


def to_sampling_params(
    body: SamplingFields,
    *,
    max_tokens: int | None,
    num_prompt_tokens: int,
    engine: Engine,
    vocab_size: int,
    seed: int,
    default_temperature: float,
    wanted: WantedLogprobs,
) -> SamplingParams:
    """The sampling parameters of a body. `seed` is for a body without one.

    Raises ContextLengthExceeded if prompt and answer do not fit the context, UnsupportedParameter for a parameter that
    the loaded engine has no input for, InvalidRequest for values that are out of range.
    """
    _check_fits(max_tokens, num_prompt_tokens=num_prompt_tokens, max_seq_len=engine.max_seq_len)
    if max_tokens is None:
        room = engine.max_seq_len - num_prompt_tokens
        max_tokens = min(room, _default_max_tokens(body, engine, room))
    if (body.min_tokens or 0) > max_tokens:
        raise InvalidRequest(
            f"`min_tokens` must not exceed the {max_tokens} tokens of `max_tokens`.", param="min_tokens"
        )
    temperature = default_temperature if body.temperature is None else body.temperature
    params = SamplingParams(
        max_tokens=max_tokens,
        temperature=0.0 if temperature < _GREEDY_BELOW else temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=(seed if body.seed is None else body.seed) % 2**64,
        top_k=body.top_k if body.top_k is not None and body.top_k > 0 else None,
        min_p=body.min_p or None,
        repetition_penalty=body.repetition_penalty if body.repetition_penalty != 1.0 else None,
        presence_penalty=body.presence_penalty or None,
        frequency_penalty=body.frequency_penalty or None,
        min_tokens=body.min_tokens or None,
        ignore_eos=bool(body.ignore_eos),
        stop=tuple(body.stop or ()),
        stop_token_ids=frozenset(body.stop_token_ids or ()),
        include_stop_str_in_output=bool(body.include_stop_str_in_output),
        skip_special_tokens=body.skip_special_tokens is not False,
        logprobs=True if wanted.logprobs and not wanted.needs_alternatives else None,
        top_logprobs=wanted.top_logprobs if wanted.logprobs and wanted.needs_alternatives else None,
        prompt_logprobs=wanted.prompt_logprobs,
        logit_bias=_dense_bias(body.logit_bias, vocab_size),
    )
    _check_honoured(params, engine)
    check_token_ids("stop_token_ids", body.stop_token_ids or (), vocab_size)
    return params


def _default_max_tokens(body: SamplingFields, engine: Engine, room: int) -> int:
    """Without `max_tokens` an answer may fill the context, unless the engine has a default; never below min_tokens."""
    return max(engine.default_max_tokens or room, body.min_tokens or 0)


def _check_fits(max_tokens: int | None, *, num_prompt_tokens: int, max_seq_len: int) -> None:
    """Raises ContextLengthExceeded in the words of vLLM 0.4: clients parse them."""
    context = f"This model's maximum context length is {max_seq_len} tokens. However, you requested"
    if max_tokens is None:
        if num_prompt_tokens >= max_seq_len:
            raise ContextLengthExceeded(
                f"{context} {num_prompt_tokens} tokens in the messages, Please reduce the length of the messages."
            )
    elif num_prompt_tokens + max_tokens > max_seq_len:
        raise ContextLengthExceeded(
            f"{context} {num_prompt_tokens + max_tokens} tokens ({num_prompt_tokens} in the messages, {max_tokens} in "
            "the completion). Please reduce the length of the messages or completion."
        )


def truncate_prompt(
    prompt_token_ids: Sequence[int], truncate_prompt_tokens: int | None, max_tokens: int | None, max_seq_len: int
) -> Sequence[int]:
    """The last `truncate_prompt_tokens` tokens of a prompt; -1 keeps as many as leave room for the answer."""
    if truncate_prompt_tokens is None:
        return prompt_token_ids
    if truncate_prompt_tokens == 0:
        raise InvalidRequest(
            "`truncate_prompt_tokens` is 0; accepted: -1, or 1 and more.", param="truncate_prompt_tokens"
        )
    room = max_seq_len - (max_tokens or 1) if truncate_prompt_tokens < 0 else truncate_prompt_tokens
    return prompt_token_ids[-max(room, 1) :]


def _dense_bias(logit_bias: Mapping[int, float] | None, vocab_size: int) -> list[float] | None:
    """One bias for each token of the vocabulary. TensorRT-LLM fails the whole batch for any other length."""
    if not logit_bias:
        return None
    check_token_ids("logit_bias", logit_bias, vocab_size)
    return [logit_bias.get(token_id, 0.0) for token_id in range(vocab_size)]


def check_token_ids(param: str, token_ids: Iterable[int], vocab_size: int) -> None:
    """Raises InvalidRequest for an id that has no row in the embedding."""
    if (largest := max(token_ids, default=0)) >= vocab_size:
        raise InvalidRequest(f"`{param}` has {largest}; accepted: token ids 0 to {vocab_size - 1}.", param=param)


def _check_honoured(params: SamplingParams, engine: Engine) -> None:
    for field in ENGINE_DEPENDENT:
        if getattr(params, field) is not None and field not in engine.honours:
            raise UnsupportedParameter(
                f"The loaded engine cannot honour `{field}`: it has no input for it.", param=field
            )
