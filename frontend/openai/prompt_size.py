"""Bounds on the text of a prompt: by its characters before anything is made of it, by its tokens while it is encoded.

Pure. A prompt within these bounds that still does not fit the context is refused in sampling.py, with its exact size.
"""

from collections.abc import Iterable

from frontend.errors import ContextLengthExceeded, InvalidRequest
from frontend.text.served_model import ServedModel

from .body_size import max_values
from .fields import SamplingFields


def max_prompt_tokens(body: SamplingFields, model: ServedModel) -> int | None:
    """The most tokens that a prompt may have, where it is not cut to its last ones."""
    return model.engine.max_seq_len if body.truncate_prompt_tokens is None else None


def check_chars(
    texts: Iterable[str], model: ServedModel, max_tokens: int | None = None, param: str = "messages"
) -> None:
    """Raises ContextLengthExceeded for text that is more than `max_tokens` tokens, however it is encoded.

    Without `max_tokens` it may be as much as is encoded at all, which is for text that need not fit the context.
    """
    per_token = model.tokenizer.max_chars_per_token
    if per_token is None:
        return
    at_least = -(-sum(map(len, texts)) // per_token)
    if at_least > (max_tokens or max_values(model.engine.max_seq_len)):
        raise _too_long(at_least, model, param)


def to_token_ids(encoded: Iterable[list[int]], model: ServedModel, param: str = "messages") -> list[int]:
    """The token ids of a prompt that is encoded in pieces. `param` is the field with its text.

    Raises ContextLengthExceeded as soon as there are more than the values that a body may have.
    """
    token_ids: list[int] = []
    try:
        for piece in encoded:
            token_ids += piece
            check_num_tokens(len(token_ids), model, param)
    except InvalidRequest as error:
        error.param = error.param or param
        raise
    return token_ids


def check_num_tokens(at_least: int, model: ServedModel, param: str) -> None:
    """Raises ContextLengthExceeded for more tokens than a body may have values."""
    if at_least > max_values(model.engine.max_seq_len):
        raise _too_long(at_least, model, param)


def _too_long(at_least: int, model: ServedModel, param: str) -> ContextLengthExceeded:
    """In the words of vLLM 0.4, as in sampling.py: clients parse them."""
    return ContextLengthExceeded(
        f"This model's maximum context length is {model.engine.max_seq_len} tokens. However, you requested {at_least} "
        "tokens or more in the messages, Please reduce the length of the messages.",
        param=param,
    )
