"""The one model that is served: what turns text into its tokens, and the limits that requests to it must keep."""

from collections.abc import Sequence
from dataclasses import dataclass

from .generation import EndTokens, Engine
from .template import ChatTemplate
from .tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """`vocab_size` counts the rows of the embedding: it may be more than the tokenizer has tokens."""

    template: ChatTemplate
    tokenizer: Tokenizer
    end_tokens: EndTokens
    engine: Engine
    vocab_size: int


def served_names(given: Sequence[str], checkpoint_path: str) -> tuple[str, ...]:
    """The names a client may use: as the operator says, else the checkpoint's path, as vLLM does."""
    return tuple(given) or (checkpoint_path,)
