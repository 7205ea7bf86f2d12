"""The fate of every request parameter: honoured, refused by name, or reported as unknown.

Pure, from wire fields to SamplingParams, for every endpoint that generates. Refuses to drop anything in silence.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from .errors import ContextLengthExceeded, InvalidRequest, UnsupportedParameter
from .generation import SamplingParams
from .protocol import SamplingFields

DEFAULT_TEMPERATURE = 0.7
"""vLLM 0.4's for chat: what clients of the server that this one replaces are used to."""

_GREEDY_BELOW = 1e-5
"""vLLM's threshold: dividing logits by less than this is no longer sampling."""

NOT_BUILT: Mapping[str, Sequence[Any]] = {
    # OpenAI's
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
    # vLLM's
    "best_of": (1,),
    "use_beam_search": (False,),
    "length_penalty": (1.0,),
    "early_stopping": (False,),
    "min_p": (0.0,),
    "stop_token_ids": ([],),
    "include_stop_str_in_output": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "bad_words": ([],),
    "allowed_token_ids": ([],),
    "prompt_logprobs": (0,),
    "truncate_prompt_tokens": (),
    "echo": (False,),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "add_special_tokens": (False,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "documents": ([],),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "structured_outputs": (),
    "return_token_ids": (False,),
    "priority": (0,),
    "cache_salt": (),
    # of a message
    "tool_calls": ([],),
    # of stream_options
    "continuous_usage_stats": (False,),
}
"""Known parameters that are not built, each with the values (beside null) that ask for nothing."""


def check_supported(body: BaseModel) -> None:
    """Raises UnsupportedParameter for a known parameter that asks for something that is not built."""
    for path, name, value in _undeclared(body):
        if name in NOT_BUILT and not _asks_for_nothing(name, value):
            accepted = "".join(f" or {_as_json(neutral)}" for neutral in NOT_BUILT[name])
            raise UnsupportedParameter(
                f"`{path}` is not supported by this server; leave it out or send null{accepted}.", param=path
            )


def ignored_params(body: BaseModel) -> list[str]:
    """The fields of a body that nothing here knows, by path, each once: accepted, and to be told to the client."""
    names = [path for path, name, value in _undeclared(body) if name not in NOT_BUILT and value is not None]
    return list(dict.fromkeys(names))


def to_sampling_params(
    body: SamplingFields, *, max_tokens: int | None, num_prompt_tokens: int, max_seq_len: int, random_seed: int
) -> SamplingParams:
    """The wishes of a body, in our words. Raises ContextLengthExceeded if prompt and answer do not fit."""
    max_tokens = fit_context(max_tokens, num_prompt_tokens=num_prompt_tokens, max_seq_len=max_seq_len)
    if (body.min_tokens or 0) > max_tokens:
        raise InvalidRequest(
            f"`min_tokens` must not exceed the {max_tokens} tokens of `max_tokens`.", param="min_tokens"
        )
    temperature = DEFAULT_TEMPERATURE if body.temperature is None else body.temperature
    return SamplingParams(
        max_tokens=max_tokens,
        temperature=0.0 if temperature < _GREEDY_BELOW else temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=(random_seed if body.seed is None else body.seed) % 2**64,
        top_k=body.top_k if body.top_k is not None and body.top_k > 0 else None,
        repetition_penalty=body.repetition_penalty if body.repetition_penalty != 1.0 else None,
        presence_penalty=body.presence_penalty or None,
        frequency_penalty=body.frequency_penalty or None,
        min_tokens=body.min_tokens or None,
        ignore_eos=bool(body.ignore_eos),
        stop=tuple(body.stop or ()),
    )


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


def _undeclared(body: BaseModel, path: str = "") -> Iterator[tuple[str, str, Any]]:
    """(path, name, value) of every field that no wire type declares, at any depth. Places in lists are left out."""
    for name, value in (body.model_extra or {}).items():
        yield path + name, name, value
    for name in type(body).model_fields:
        value = getattr(body, name)
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, BaseModel):
                yield from _undeclared(child, f"{path}{name}.")


def _asks_for_nothing(name: str, value: Any) -> bool:
    """JSON's true is not 1, though Python's is."""
    return value is None or any(
        value == neutral and isinstance(value, bool) == isinstance(neutral, bool) for neutral in NOT_BUILT[name]
    )


def _as_json(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')
