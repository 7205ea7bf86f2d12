"""The one model that is served: what turns text into its tokens, and the limits that requests to it must keep."""

from dataclasses import dataclass

from frontend.generation import EndTokens, Engine

from .chat_template import ChatTemplate
from .tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """`vocab_size` counts the rows of the embedding: it may be more than the tokenizer has tokens."""

    template: ChatTemplate
    tokenizer: Tokenizer
    end_tokens: EndTokens
    engine: Engine
    vocab_size: int
    allow_chat_template: bool
