"""What the bodies and answers of several endpoints share."""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from .body import Body, Unsupported
from .unsupported import UNSUPPORTED

_TOKEN_ID = re.compile("[0-9]{1,10}")
MAX_STOP_STRINGS = 16
MAX_STOP_LENGTH = 256
MAX_STOP_TOKEN_IDS = 256
MAX_N = 128
MAX_LOGIT_BIAS = 1024
MAX_CHOICES = 1024


def text_parts(kind: str) -> Callable[[Any], Any]:
    """Reads content: a string is one part of that `kind`."""

    def read(content: Any) -> Any:
        if isinstance(content, str):
            return [{"type": kind, "text": content}]
        if not isinstance(content, list):
            raise PydanticCustomError("content", "Input should be a string or a list of text parts")
        return content

    return read


def _string_list(stop: Any) -> Any:
    """A string is a list of one."""
    return [stop] if isinstance(stop, str) else stop


def _biases(bias: Any) -> Any:
    """Token ids are keys of a JSON object, so they come as strings."""
    if not isinstance(bias, dict):
        return bias
    if not all(_TOKEN_ID.fullmatch(str(token_id)) for token_id in bias):
        raise PydanticCustomError("logit_bias", "Keys should be token ids")
    return {int(token_id): value for token_id, value in bias.items()}


def described(expected: str) -> WrapValidator:
    """For a union: one sentence about all of it, where pydantic has one about each member, under that member's name."""

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError as exc:
            raise PydanticCustomError("union", "Input should be {expected}", {"expected": expected}) from exc

    return WrapValidator(validate)


class StreamOptions(Body):
    """What a stream carries beside the text."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class JsonSchemaFormat(Body):
    """OpenAI's wrapper around a schema."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None
    description: str | None = None


class ResponseFormat(Body):
    """`text`, any JSON object, or JSON that a schema describes."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


SchemaField = Annotated[
    dict[str, Any] | bool | str,
    described("a JSON Schema: an object, true, false, or one of these as a string"),
]
"""Also as text, as with vLLM."""


class StructuredOutputs(Body):
    """vLLM's newer names for guided decoding; one of them."""

    json_: SchemaField | None = Field(None, alias="json")
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None


StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]


class SamplingFields(Body):
    """The parameters that every generating endpoint shares. Ranges are OpenAI's; null means the default.

    The descriptions are also those of docs/parameters.md.
    """

    unsupported: ClassVar[Mapping[str, Unsupported]] = UNSUPPORTED

    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        None, description="0 to 2, 0 is greedy; by default 0.7, and 1 for completions, as vLLM 0.4 has it"
    )
    top_p: Annotated[float, Field(gt=0, le=1)] | None = Field(None, description="above 0, up to 1")
    stop: (
        Annotated[
            list[StopString],
            Field(max_length=MAX_STOP_STRINGS),
            BeforeValidator(_string_list, json_schema_input_type=str | list[str]),
        ]
        | None
    ) = Field(
        None,
        description=f"up to {MAX_STOP_STRINGS} strings of up to {MAX_STOP_LENGTH} characters; matched on text, never "
        "leaked; `stop_reason` names the one",
    )
    stream: bool | None = Field(None, description="server-sent events in OpenAI's current shape")
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = Field(None, description="64 bits; by default random")
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = Field(None, description="-2 to 2")
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = Field(None, description="-2 to 2")
    logit_bias: (
        Annotated[
            dict[int, Annotated[float, Field(ge=-100, le=100)]],
            Field(max_length=MAX_LOGIT_BIAS),
            BeforeValidator(_biases, json_schema_input_type=dict[str, float]),
        ]
        | None
    ) = Field(None, description=f"-100 to 100 for each of up to {MAX_LOGIT_BIAS} token ids")
    user: str | None = Field(None, description="by OpenAI's definition")
    metadata: dict[str, Any] | None = Field(None, description="by OpenAI's definition; responses give it back")
    # vLLM's extensions
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = Field(None, description="-1 and 0 turn it off")
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None = Field(None, description="above 0, up to 2")
    min_tokens: Annotated[int, Field(ge=0)] | None = Field(None, description="nothing ends the answer before")
    ignore_eos: bool | None = Field(None, description="the model's end tokens do not end the answer")
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MAX_STOP_TOKEN_IDS)] | None = Field(
        None, description=f"up to {MAX_STOP_TOKEN_IDS} ids; `stop_reason` names the one"
    )
    include_stop_str_in_output: bool | None = Field(None, description="the stop string stays in the text")
    skip_special_tokens: bool | None = Field(None, description="`false` shows control tokens as text")
    spaces_between_special_tokens: bool | None = Field(None, description="as with vLLM's fast tokenizers")
    truncate_prompt_tokens: Annotated[int, Field(ge=-1)] | None = Field(
        None, description="only the prompt's last tokens; -1: those that fit beside the answer"
    )
    guided_json: SchemaField | None = Field(None, description="vLLM 0.4's name for a JSON schema")
    guided_regex: str | None = Field(None, description="a regular expression")
    guided_choice: list[str] | None = Field(None, description="one of these strings")
    guided_grammar: str | None = Field(None, description="a grammar in EBNF")
    structured_outputs: StructuredOutputs | None = Field(None, description="vLLM's newer name for the four above")


class CompletionFields(SamplingFields):
    """What chat and completions, which know more than one answer, have beyond that."""

    max_tokens: Annotated[int, Field(ge=1)] | None = Field(
        None, description="by default the answer may fill the context; 16 for completions"
    )
    n: Annotated[int, Field(ge=1, le=MAX_N)] | None = Field(
        None,
        description=f"up to {MAX_N}; each takes a place in the queue and has its own seed: `seed`, `seed` + 1, ...",
    )
    stream_options: StreamOptions | None = Field(None, description="`include_usage`, `continuous_usage_stats`")
    response_format: ResponseFormat | None = Field(
        None, description="`text`, `json_object`, `json_schema`; guaranteed by guided decoding"
    )
    return_token_ids: bool | None = Field(None, description="vLLM's: `prompt_token_ids` and `token_ids` in the answer")


class PromptTokensDetails(BaseModel):
    """How much of the prompt was in the KV cache."""

    cached_tokens: int


class UsageBody(BaseModel):
    """Tokens, in the order that vLLM 0.4 names them; the details, where the operator wants them told, are newer."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
    prompt_tokens_details: PromptTokensDetails | None = Field(None, exclude_if=lambda details: details is None)


class TokenLogprob(BaseModel):
    """One chosen token; `bytes` are those of its text, which may be part of a character."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[Any] = []


class ErrorDetail(BaseModel):
    """What went wrong, for people (`message`) and programs."""

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
    """Every answer that is not a success."""

    model_config = ConfigDict(json_schema_extra={"examples": [_MODEL_NOT_FOUND]})

    error: ErrorDetail
