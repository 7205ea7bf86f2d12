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
    """The vocabulary of the served model, as its engine has it: without special tokens, and with one end token."""
    end_tokens = model.end_tokens
    never_text = {end_tokens.end_id, *end_tokens.other_end_ids}
    token_bytes = model.tokenizer.bytes_of(skip_special_tokens=True)
    return Vocabulary(
        token_bytes={token_id: text for token_id, text in token_bytes.items() if token_id not in never_text},
        stop_token_ids=(end_tokens.end_id,),
    )
