"""POST /tokenize, /detokenize and /v1/chat/completions/render, and GET /tokenizer_info, as vLLM has them."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from frontend.openai.body import Body, Unsupported
from frontend.openai.chat.types import MessageList, PromptFields
from frontend.openai.fields import FAIL_FAST, TokenId
from frontend.openai.unsupported import UNSUPPORTED


class TokenizeRequest(PromptFields):
    """Either a text, or a conversation as in a chat body."""

    unsupported: ClassVar[Mapping[str, Unsupported]] = UNSUPPORTED

    model: str | None = None
    prompt: str | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None
    messages: MessageList | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> "TokenizeRequest":
        if (self.prompt is None) == (self.messages is None):
            raise PydanticCustomError("one_of", "Send one of `prompt` and `messages`")
        return self


class TokenizeResponse(BaseModel):
    """The token ids. `max_model_len` is the context in tokens; `token_strs` are only there if they are asked for."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = Field(None, exclude_if=lambda strings: strings is None)


class DetokenizeRequest(Body):
    """Token ids to text."""

    model: str | None = None
    tokens: Annotated[list[TokenId], FAIL_FAST]


class DetokenizeResponse(BaseModel):
    """The text, with special tokens written out."""

    prompt: str


class TokenizerInfo(BaseModel):
    """The checkpoint's tokenizer_config.json, with the chat template that is served. lm-eval reads it."""

    model_config = ConfigDict(extra="allow")

    chat_template: str


class RenderResponse(BaseModel):
    """The prompt that the engine would get for a chat body."""

    prompt: str
    prompt_token_ids: list[int]
