"""POST /v1/completions, OpenAI's older API: text or token ids are continued as they are."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from frontend.generation import FinishReason
from frontend.openai.fields import (
    FAIL_FAST,
    MAX_CHOICES,
    MAX_TOP_LOGPROBS,
    CompletionFields,
    TokenId,
    UsageBody,
    described,
)

_TokenIds = Annotated[list[TokenId], FAIL_FAST, Field(min_length=1)]


class CompletionRequest(CompletionFields):
    """The body of POST /v1/completions."""

    model: str | None = Field(None, description="one of the served names, else 404; default: the first of them")
    prompt: Annotated[
        str
        | _TokenIds
        | Annotated[list[str], FAIL_FAST, Field(min_length=1, max_length=MAX_CHOICES)]
        | Annotated[list[_TokenIds], FAIL_FAST, Field(min_length=1, max_length=MAX_CHOICES)],
        described(
            "a string, a list of strings, token ids, or a list of lists of token ids; lists hold 1 to "
            f"{MAX_CHOICES} prompts"
        ),
    ] = Field(description="a string, a list of strings, token ids, or a list of lists of token ids")
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = Field(
        None, description="of the chosen tokens, and of 0 to 20 alternatives to each"
    )
    echo: bool | None = Field(
        None, description="the text begins with the prompt; with `logprobs` its tokens have them too, on the CPU engine"
    )
    add_special_tokens: bool | None = Field(None, description="`false` leaves out the token that begins a text")


class CompletionLogprobs(BaseModel):
    """OpenAI's older shape; `text_offset` counts characters of `text`.

    `top_logprobs` is null where `logprobs` is 0. The first token of an echoed prompt has null in place of both.
    """

    text_offset: list[int]
    token_logprobs: list[float | None]
    tokens: list[str]
    top_logprobs: list[dict[str, float] | None] | None = None


class CompletionChoice(BaseModel):
    """One answer: the continuation of a prompt."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason
    stop_reason: str | int | None


class Completion(BaseModel):
    """A complete reply, with vLLM 0.4's fields in its order."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: Sequence[CompletionChoice]
    usage: UsageBody
