"""The one model that is served: its chat template, tokenizer, end tokens, default sampling, and its engine's limits."""

from dataclasses import dataclass

from frontend.generation import EndTokens, Engine, SamplingDefaults

from .chat_template import ChatTemplate
from .tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """`vocab_size` is the number of rows of the embedding, which may exceed the number of tokens.

    `allow_chat_template`: a request may bring a chat template of its own. `sampling_defaults` are the checkpoint's,
    those that the engine honours.
    """

    template: ChatTemplate
    tokenizer: Tokenizer
    end_tokens: EndTokens
    engine: Engine
    vocab_size: int
    allow_chat_template: bool
    sampling_defaults: SamplingDefaults
