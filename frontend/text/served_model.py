"""The one model that is served: its chat template, tokenizer and end tokens, and the limits of its engine."""

from dataclasses import dataclass

from frontend.generation import EndTokens, Engine

from .chat_template import ChatTemplate
from .tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """`vocab_size` is the number of rows of the embedding, which may exceed the number of tokens.

    `allow_chat_template`: a request may bring a chat template of its own.
    """

    template: ChatTemplate
    tokenizer: Tokenizer
    end_tokens: EndTokens
    engine: Engine
    vocab_size: int
    allow_chat_template: bool
