"""The vocabulary that grammars are compiled for: the bytes of each token, and the tokens that end an answer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for types alone: the worker process imports this module, and loading transformers takes seconds
    from frontend.text.served_model import ServedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """`token_bytes` is by token id; an answer never contains a token without an entry. `stop_token_ids` end one."""

    token_bytes: dict[int, bytes]
    stop_token_ids: tuple[int, ...]


def vocabulary_of(model: "ServedModel") -> Vocabulary:
    """The vocabulary of the served model, without its special tokens: an answer contains none."""
    end_tokens = model.end_tokens
    return Vocabulary(
        token_bytes=dict(model.tokenizer.bytes_of(skip_special_tokens=True)),
        stop_token_ids=(end_tokens.end_id, *sorted(end_tokens.other_end_ids)),
    )
