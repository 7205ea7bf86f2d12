"""Fields and types that the bodies and replies of several endpoints share."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError, PydanticKnownError

from .body import Body, Unsupported
from .unsupported import UNSUPPORTED

_TOKEN_ID = re.compile("[0-9]{1,10}")

MAX_STOP_STRINGS = 16
"""OpenAI accepts 4, and vLLM any number."""

MAX_STOP_LENGTH = 256
"""Characters of a stop string."""

MAX_STOP_TOKEN_IDS = 256

MAX_N = 128
"""OpenAI's limit."""

MAX_LOGIT_BIAS = 1024
"""Tokens with a bias."""

MAX_MESSAGES = 4096
"""Messages of a conversation, or items of `input`."""

MAX_COUNT = 2**63
"""Numbers of tokens are below it. More digits than Python writes out would be an error of the server."""

_SMALLEST_FLOAT32 = 2.0**-126
"""The smallest normal float32. The engines' inputs are of that type: less would become 0."""

FAIL_FAST: Any = Field(fail_fast=True)
"""For a list: the first element that is wrong ends its check. Each error costs more than the element."""

MAX_TOP_LOGPROBS = 20
"""OpenAI's limit for chat: the most likely tokens beside each token."""

MAX_CHOICES = 1024
"""Answers in one reply: prompts times `n`."""


def text_parts(kind: str) -> Callable[[Any], Any]:
    """A validator of message content: a string becomes one part of the type `kind`."""

    def read(content: Any) -> Any:
        if isinstance(content, str):
            return [{"type": kind, "text": content}]
        if not isinstance(content, list):
            raise PydanticCustomError("content", "Input should be a string or a list of text parts")
        return content

    return read


def at_most(count: int) -> BeforeValidator:
    """A validator of an object's size, with pydantic's own message. Pydantic checks the size last, after the values."""

    def check(value: Any) -> Any:
        if isinstance(value, dict) and len(value) > count:
            raise PydanticKnownError(
                "too_long", {"field_type": "Dictionary", "max_length": count, "actual_length": len(value)}
            )
        return value

    return BeforeValidator(check)


def _above_zero(value: float) -> float:
    if value < _SMALLEST_FLOAT32:
        raise PydanticCustomError("too_small", "Input should be at least 1.2e-38, the smallest float32 above 0")
    return value


def _string_list(stop: Any) -> Any:
    """A single string becomes a list of one."""
    return [stop] if isinstance(stop, str) else stop


def _biases(bias: Any) -> Any:
    """Keys of a JSON object are strings; they become token ids."""
    if not isinstance(bias, dict):
        return bias
    if wrong := [key for key in bias if not _TOKEN_ID.fullmatch(str(key))]:
        raise PydanticCustomError(
            "logit_bias", "Keys should be token ids; found {key}", {"key": ascii(str(wrong[0])[:40])}
        )
    return {int(token_id): value for token_id, value in bias.items()}


def described(expected: str) -> WrapValidator:
    """One error for a union, `Input should be {expected}`, instead of pydantic's error for each of its members."""

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError as exc:
            raise PydanticCustomError("union", "Input should be {expected}", {"expected": expected}) from exc

    return WrapValidator(validate)


class StreamOptions(Body):
    """Token counts in a stream: at its end, and with `continuous_usage_stats` in every chunk too."""

    include_usage: bool = False
    continuous_usage_stats: bool = False

    @property
    def usage_in_chunks(self) -> bool:
        """Whether every chunk has the counts so far: as in vLLM only together with those at the end."""
        return self.include_usage and self.continuous_usage_stats


class JsonSchemaFormat(Body):
    """OpenAI's wrapper around a schema."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None
    description: str | None = None


class ResponseFormat(Body):
    """`text`, any JSON object, or JSON that a schema describes. `schema` is llama.cpp's place for the schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")


SchemaField = Annotated[
    dict[str, Any] | bool | str,
    described("a JSON Schema: an object, true, false, or one of these as a string"),
]
"""A JSON Schema, or its JSON text, as in vLLM."""


class StructuredOutputs(Body):
    """vLLM's newer names for guided decoding. A body sets one of them."""

    json_: SchemaField | None = Field(None, alias="json")
    regex: str | None = None
    choice: Annotated[list[str], FAIL_FAST] | None = None
    grammar: str | None = None
    json_object: bool | None = None


StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]


class SamplingFields(Body):
    """The parameters that every generating endpoint shares. Ranges are OpenAI's; null means the default.

    `make table` copies the descriptions into docs/parameters.md.
    """

    unsupported: ClassVar[Mapping[str, Unsupported]] = UNSUPPORTED

    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        None,
        description="0 to 2, 0 is greedy; default 0.7, for completions 1, as in vLLM 0.4, and for messages 1, unless "
        "the checkpoint's `generation_config.json` names one",
    )
    top_p: Annotated[float, Field(gt=0, le=1), AfterValidator(_above_zero)] | None = Field(
        None, description="above 0, up to 1"
    )
    stop: (
        Annotated[
            list[StopString],
            FAIL_FAST,
            Field(max_length=MAX_STOP_STRINGS),
            BeforeValidator(_string_list, json_schema_input_type=str | list[str]),
        ]
        | None
    ) = Field(
        None,
        description=f"up to {MAX_STOP_STRINGS} strings of up to {MAX_STOP_LENGTH} characters; the text ends before "
        "the first match, which is the `stop_reason`",
    )
    stream: bool | None = Field(None, description="server-sent events in OpenAI's current shape")
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = Field(None, description="64 bits; default random")
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = Field(None, description="-2 to 2")
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = Field(None, description="-2 to 2")
    logit_bias: (
        Annotated[
            dict[int, Annotated[float, Field(ge=-100, le=100)]],
            Field(max_length=MAX_LOGIT_BIAS),
            BeforeValidator(_biases, json_schema_input_type=dict[str, float]),
            at_most(MAX_LOGIT_BIAS),
        ]
        | None
    ) = Field(None, description=f"-100 to 100 for each of up to {MAX_LOGIT_BIAS} token ids")
    user: str | None = Field(None, description="an identifier of the end user")
    metadata: dict[str, Any] | None = Field(None, description="the client's own notes; `/v1/responses` returns them")
    # vLLM's extensions
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = Field(None, description="-1 and 0 turn it off")
    min_p: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="0 to 1: drops tokens that are less likely than this times the most likely one"
    )
    repetition_penalty: Annotated[float, Field(gt=0, le=2), AfterValidator(_above_zero)] | None = Field(
        None, description="above 0, up to 2"
    )
    min_tokens: Annotated[int, Field(ge=0, lt=MAX_COUNT)] | None = Field(
        None, description="the answer does not end before that many tokens"
    )
    ignore_eos: bool | None = Field(None, description="the model's end tokens do not end the answer")
    stop_token_ids: Annotated[list[TokenId], FAIL_FAST, Field(max_length=MAX_STOP_TOKEN_IDS)] | None = Field(
        None, description=f"up to {MAX_STOP_TOKEN_IDS} ids; the one that ends the answer is the `stop_reason`"
    )
    include_stop_str_in_output: bool | None = Field(None, description="the stop string stays in the text")
    skip_special_tokens: bool | None = Field(None, description="`false` shows special tokens as text")
    spaces_between_special_tokens: bool | None = Field(None, description="as in vLLM with a fast tokenizer")
    truncate_prompt_tokens: Annotated[int, Field(ge=-1, lt=MAX_COUNT)] | None = Field(
        None, description="keeps the prompt's last tokens only; -1: as many as fit beside the answer"
    )
    guided_json: SchemaField | None = Field(None, description="vLLM 0.4's name for a JSON schema")
    guided_regex: str | None = Field(None, description="a regular expression")
    guided_choice: Annotated[list[str], FAIL_FAST] | None = Field(None, description="one of these strings")
    guided_grammar: str | None = Field(None, description="a grammar in EBNF")
    structured_outputs: StructuredOutputs | None = Field(None, description="vLLM's newer name for the four above")


class CompletionFields(SamplingFields):
    """The parameters that chat and completions share, and responses does not have."""

    max_tokens: Annotated[int, Field(ge=1, lt=MAX_COUNT)] | None = Field(
        None,
        description="default: what is left of the context, at most `default_max_tokens` of `config.pbtxt` (2048); for "
        "completions 16, and for messages it is required",
    )
    n: Annotated[int, Field(ge=1, le=MAX_N)] | None = Field(
        None,
        description=f"up to {MAX_N} answers; each takes a slot and has its own seed: `seed`, `seed` + 1, ...",
    )
    stream_options: StreamOptions | None = Field(None, description="`include_usage`, `continuous_usage_stats`")
    response_format: ResponseFormat | None = Field(
        None, description="`text`, `json_object`, `json_schema`; guaranteed by guided decoding"
    )
    prompt_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = Field(
        None,
        description="vLLM's: log probability and rank of the prompt's tokens, and of 0 to 20 alternatives to each; not "
        "with `stream`",
    )
    return_tokens_as_token_ids: bool | None = Field(
        None, description="vLLM's: in log probabilities a token is `token_id:ID` in place of its text"
    )
    return_token_ids: bool | None = Field(None, description="vLLM's: `prompt_token_ids` and `token_ids` in the answer")


class PromptTokensDetails(BaseModel):
    """How many tokens of the prompt were in the KV cache."""

    cached_tokens: int


class UsageBody(BaseModel):
    """Token counts, in vLLM 0.4's order. The details are newer, and absent unless the operator turned them on."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
    prompt_tokens_details: PromptTokensDetails | None = Field(None, exclude_if=lambda details: details is None)


@dataclass(slots=True)
class TopLogprob:
    """One of the most likely tokens; `bytes` are those of its text, which may be part of a character.

    A dataclass, because an answer may have 100,000 of them, and a model takes ten times as long.
    """

    token: str
    logprob: float
    bytes: list[int] | None


@dataclass(slots=True)
class TokenLogprob(TopLogprob):
    """One chosen token, and the most likely ones in its place."""

    top_logprobs: list[TopLogprob]


class ErrorDetail(BaseModel):
    """What went wrong: `message` is for people, the other fields are for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


_MODEL_NOT_FOUND: JsonDict = {
    "error": {
        "message": "The model `gpt-4` does not exist. Served here: `mixtral`.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
}


class ErrorBody(BaseModel):
    """The body of every response with an error status."""

    model_config = ConfigDict(json_schema_extra={"examples": [_MODEL_NOT_FOUND]})

    error: ErrorDetail
