"""The fate of every request parameter: honoured, refused by name, or reported as unknown.

Pure, from wire fields to SamplingParams, for every endpoint that generates. Refuses to drop anything in silence.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel

from frontend.errors import ContextLengthExceeded, InvalidRequest, UnsupportedParameter
from frontend.generation import Engine, SamplingParams
from frontend.openai.responses.types import ResponsesRequest

from .fields import SamplingFields

DEFAULT_TEMPERATURE = 0.7
"""vLLM 0.4's for chat: what clients of the server that this one replaces are used to."""

_GREEDY_BELOW = 1e-5
"""vLLM's threshold: dividing logits by less than this is no longer sampling."""


class Refused(NamedTuple):
    """Why a known parameter is not honoured, and the values (beside null) that ask for nothing."""

    reason: str
    neutral: Sequence[Any] = ()


_NO_INPUT = "neither engine has an input for it"
_NO_TWO_DIMENSIONS = "Triton's generate extension cannot carry its tensor"
_NO_BEAMS = "answers are sampled, not searched for"
_TEXT_ONLY = "the model knows text only"

REFUSED: Mapping[str, Refused] = {
    # OpenAI's
    "functions": Refused("use `tools`", ([],)),
    "function_call": Refused("use `tool_choice`", ("none", "auto")),
    "modalities": Refused(_TEXT_ONLY, (["text"],)),
    "audio": Refused(_TEXT_ONLY),
    "web_search_options": Refused("there is no search"),
    "suffix": Refused("the model was not made for filling in", ("",)),
    # vLLM's
    "best_of": Refused("neither engine ranks answers", (1,)),
    "use_beam_search": Refused(_NO_BEAMS, (False,)),
    "length_penalty": Refused(_NO_BEAMS, (1.0,)),
    "early_stopping": Refused(_NO_BEAMS, (False,)),
    "min_p": Refused(_NO_INPUT, (0.0,)),
    "bad_words": Refused(_NO_TWO_DIMENSIONS, ([],)),
    "allowed_token_ids": Refused(_NO_INPUT, ([],)),
    "prompt_logprobs": Refused("neither engine tells them", (0,)),
    "echo": Refused("it belongs to /v1/completions", (False,)),
    "documents": Refused("put them into a message", ([],)),
    "add_special_tokens": Refused("the chat template writes the token that begins a text", (False,)),
    "priority": Refused(_NO_INPUT, (0,)),
    "cache_salt": Refused(_NO_INPUT),
    "structural_tag": Refused("TensorRT-LLM's backend does not know it"),
}
"""Known parameters that are not honoured; those that an endpoint declares are."""


REFUSED_BY_RESPONSES: Mapping[str, Refused] = {
    "previous_response_id": Refused("nothing is kept here; send the whole conversation as `input`"),
    "conversation": Refused("nothing is kept here; send the whole conversation as `input`"),
    "store": Refused("nothing is kept here", (False,)),
    "background": Refused("nothing is kept here that could be asked for later", (False,)),
    "prompt": Refused("nothing is kept here; write it out in `instructions` and `input`"),
    "truncation": Refused("nothing of a conversation is left out", ("disabled",)),
    "context_management": Refused("nothing of a conversation is left out", ([],)),
    "moderation": Refused("there is none"),
    "effort": Refused("the model does not reason", ("none",)),
    "summary": Refused("the model does not reason"),
    "generate_summary": Refused("the model does not reason"),
    "verbosity": Refused("the model knows no degrees of it", ("medium",)),
    "include_obfuscation": Refused("streams are not padded", (False,)),
    "messages": Refused("it belongs to /v1/chat/completions; use `input`"),
    "max_tokens": Refused("use `max_output_tokens`"),
    "max_completion_tokens": Refused("use `max_output_tokens`"),
    "response_format": Refused("use `text.format`", ({"type": "text"},)),
    "logprobs": Refused("use `include`", (False,)),
    "n": Refused("a response is one answer", (1,)),
    "return_token_ids": Refused("a response has no place for them", (False,)),
}
"""The same for fields that mean something to /v1/responses, or are another endpoint's names of what it has."""


def refused_by(body: type[BaseModel]) -> Mapping[str, Refused]:
    """The known parameters that an endpoint, told by its body, does not honour."""
    return {**REFUSED, **REFUSED_BY_RESPONSES} if body is ResponsesRequest else REFUSED


def check_supported(body: BaseModel) -> None:
    """Raises UnsupportedParameter for a known parameter that asks for something that is not built."""
    known = refused_by(type(body))
    for path, name, value in _undeclared(body):
        if name in known and not _asks_for_nothing(known[name], value):
            accepted = "".join(f" or {as_json(neutral)}" for neutral in known[name].neutral)
            raise UnsupportedParameter(
                f"`{path}` is not supported: {known[name].reason}. Leave it out or send null{accepted}.", param=path
            )


def ignored_params(body: BaseModel) -> list[str]:
    """The fields of a body that nothing here knows, by path, each once: accepted, and to be told to the client."""
    known = refused_by(type(body))
    names = [path for path, name, value in _undeclared(body) if name not in known and value is not None]
    return list(dict.fromkeys(names))


def to_sampling_params(
    body: SamplingFields,
    *,
    max_tokens: int | None,
    num_prompt_tokens: int,
    engine: Engine,
    vocab_size: int,
    seed: int,
    default_temperature: float,
    logprobs: bool,
    guide: str | None,
) -> SamplingParams:
    """The wishes of a body, in our words. `seed` is for a body without one.

    Raises ContextLengthExceeded if prompt and answer do not fit, UnsupportedParameter for what the loaded engine cannot
    do.
    """
    max_tokens = fit_context(max_tokens, num_prompt_tokens=num_prompt_tokens, max_seq_len=engine.max_seq_len)
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
        repetition_penalty=body.repetition_penalty if body.repetition_penalty != 1.0 else None,
        presence_penalty=body.presence_penalty or None,
        frequency_penalty=body.frequency_penalty or None,
        min_tokens=body.min_tokens or None,
        ignore_eos=bool(body.ignore_eos),
        stop=tuple(body.stop or ()),
        stop_token_ids=frozenset(body.stop_token_ids or ()),
        include_stop_str_in_output=bool(body.include_stop_str_in_output),
        skip_special_tokens=body.skip_special_tokens is not False,
        logprobs=logprobs or None,
        logit_bias=_dense_bias(body.logit_bias, vocab_size),
        guide=guide,
    )
    _check_honoured(params, engine)
    check_token_ids("stop_token_ids", body.stop_token_ids or (), vocab_size)
    return params


def fit_context(max_tokens: int | None, *, num_prompt_tokens: int, max_seq_len: int) -> int:
    """Tokens to generate: as asked, or all that fit. The sentences are vLLM 0.4's, which clients parse."""
    context = f"This model's maximum context length is {max_seq_len} tokens. However, you requested"
    if max_tokens is None:
        if num_prompt_tokens >= max_seq_len:
            raise ContextLengthExceeded(
                f"{context} {num_prompt_tokens} tokens in the messages, Please reduce the length of the messages."
            )
        return max_seq_len - num_prompt_tokens
    if num_prompt_tokens + max_tokens > max_seq_len:
        raise ContextLengthExceeded(
            f"{context} {num_prompt_tokens + max_tokens} tokens ({num_prompt_tokens} in the messages, {max_tokens} in "
            "the completion). Please reduce the length of the messages or completion."
        )
    return max_tokens


def truncate_prompt(
    prompt_token_ids: Sequence[int], truncate_prompt_tokens: int | None, max_tokens: int | None, max_seq_len: int
) -> Sequence[int]:
    """The last `truncate_prompt_tokens` of a prompt; -1 stands for those that leave room for the answer."""
    if truncate_prompt_tokens is None:
        return prompt_token_ids
    if truncate_prompt_tokens == 0:
        raise InvalidRequest(
            "`truncate_prompt_tokens` is 0; accepted: -1, or 1 and more.", param="truncate_prompt_tokens"
        )
    room = max_seq_len - (max_tokens or 1) if truncate_prompt_tokens < 0 else truncate_prompt_tokens
    return prompt_token_ids[-max(room, 1) :]


def _dense_bias(logit_bias: Mapping[int, float] | None, vocab_size: int) -> list[float] | None:
    """One number for each token of the vocabulary: any other count fails the whole batch in TensorRT-LLM."""
    if not logit_bias:
        return None
    check_token_ids("logit_bias", logit_bias, vocab_size)
    return [logit_bias.get(token_id, 0.0) for token_id in range(vocab_size)]


def check_token_ids(param: str, token_ids: Iterable[int], vocab_size: int) -> None:
    """Raises InvalidRequest for an id that the embedding has no row for."""
    if (largest := max(token_ids, default=0)) >= vocab_size:
        raise InvalidRequest(f"`{param}` has {largest}; accepted: token ids 0 to {vocab_size - 1}.", param=param)


_ENGINE_FIELDS: Mapping[str, str] = {"guide": "response_format"}
"""The field of SamplingParams and the parameter that a client knows it by, where they differ."""


def _check_honoured(params: SamplingParams, engine: Engine) -> None:
    for field in ENGINE_DEPENDENT:
        if getattr(params, field) is not None and field not in engine.honours:
            param = _ENGINE_FIELDS.get(field, field)
            raise UnsupportedParameter(
                f"The loaded engine cannot honour `{param}`: it has no input for it.", param=param
            )


ENGINE_DEPENDENT: Sequence[str] = (
    "top_k", "repetition_penalty", "presence_penalty", "frequency_penalty", "min_tokens", "logprobs", "logit_bias",
    "guide",
)  # fmt: skip
"""Fields of SamplingParams that an engine may lack the input for."""


def _undeclared(body: BaseModel, path: str = "") -> Iterator[tuple[str, str, Any]]:
    """(path, name, value) of every field that no wire type declares, at any depth. Places in lists are left out."""
    for name, value in (body.model_extra or {}).items():
        yield path + name, name, value
    given = body.model_fields_set
    for name in [name for name in type(body).model_fields if name in given]:
        value = getattr(body, name)
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, BaseModel):
                yield from _undeclared(child, f"{path}{name}.")


def _asks_for_nothing(refused: Refused, value: Any) -> bool:
    """JSON's true is not 1, though Python's is."""
    return value is None or any(
        value == neutral and isinstance(value, bool) == isinstance(neutral, bool) for neutral in refused.neutral
    )


def as_json(value: Any) -> str:
    """A neutral value as a client writes it."""
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')
