"""OpenAI's wire types for chat, field for field: what a body may hold, and what an answer looks like.

Refuses behaviour: what the fields mean is decided in parameters.py and chat.py. Fields that are not declared here are
kept aside, so that those can refuse them or report them.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from .generation import FinishReason

MAX_STOP_STRINGS = 16
MAX_STOP_LENGTH = 256


def _text_parts(content: Any) -> Any:
    """A string is one part."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise PydanticCustomError("content", "Input should be a string or a list of text parts")
    return content


def _string_list(stop: Any) -> Any:
    """A string is a list of one."""
    return [stop] if isinstance(stop, str) else stop


class _Body(BaseModel):
    """Strict, as a wrong type is a mistake; extra fields are kept, as clients send what other servers know."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class TextPart(_Body):
    """The one kind of content part that a text model takes."""

    type: Literal["text"]
    text: str


class ChatMessage(_Body):
    """One message; `developer` is OpenAI's newer word for `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        list[TextPart],
        BeforeValidator(_text_parts, json_schema_input_type=str | list[TextPart]),
    ]


class StreamOptions(_Body):
    """What a stream carries beside the text."""

    include_usage: bool = False


StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]


class SamplingFields(_Body):
    """The parameters that every generating endpoint shares. Ranges are OpenAI's; null means the default."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: (
        Annotated[
            list[StopString],
            Field(max_length=MAX_STOP_STRINGS),
            BeforeValidator(_string_list, json_schema_input_type=str | list[str]),
        ]
        | None
    ) = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    user: str | None = Field(None, description="Accepted; by OpenAI's definition it does not change the answer.")
    # vLLM's extensions
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = Field(None, description="-1 and 0 turn it off.")
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None = None
    min_tokens: Annotated[int, Field(ge=0)] | None = None
    ignore_eos: bool | None = None


class ChatCompletionRequest(SamplingFields):
    """The body of POST /v1/chat/completions."""

    model: str
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


class AssistantMessage(BaseModel):
    """What the model said, leading space included."""

    role: Literal["assistant"] = "assistant"
    content: str


class ChatChoice(BaseModel):
    """One answer; `stop_reason` is the stop string that ended it."""

    index: int
    message: AssistantMessage
    logprobs: None = None
    finish_reason: FinishReason
    stop_reason: str | None


class UsageBody(BaseModel):
    """Tokens, in the order that vLLM 0.4 names them."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int


class ChatCompletion(BaseModel):
    """A whole answer: exactly vLLM 0.4's fields in its order."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: Sequence[ChatChoice]
    usage: UsageBody


class ModelCard(BaseModel):
    """One served name; `max_model_len` is the context in tokens, as vLLM tells it."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    max_model_len: int


class ModelList(BaseModel):
    """The answer of GET /v1/models."""

    object: Literal["list"] = "list"
    data: Sequence[ModelCard]


class ErrorDetail(BaseModel):
    """What went wrong, for people (`message`) and programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Every answer that is not a success."""

    error: ErrorDetail
