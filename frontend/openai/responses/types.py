"""/v1/responses, OpenAI's newer API: requests, responses, and what is said of stored ones."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, PlainValidator, Tag
from pydantic_core import PydanticCustomError

from frontend.openai.body import Body, Unsupported
from frontend.openai.fields import (
    FAIL_FAST,
    MAX_COUNT,
    MAX_MESSAGES,
    MAX_TOP_LOGPROBS,
    SamplingFields,
    TokenLogprob,
    at_most,
    text_parts,
)
from frontend.openai.tools.types import MAX_TOOLS, FunctionCall, allowed_tools, unnamed_tool_choice
from frontend.openai.unsupported import UNSUPPORTED
from frontend.text.tools import ToolChoice

from .tools import Namespace, ResponseTool, ToolField
from .unsupported import UNSUPPORTED_BY_RESPONSES

MAX_METADATA = 16
"""OpenAI's limit, in pairs."""

Status = Literal["in_progress", "completed", "incomplete", "failed"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]

CallId = Annotated[str, Field(min_length=1, max_length=256)]


class ItemText(Body):
    """The client's own text (`input_text`), or text of an earlier answer (`output_text`)."""

    type: Literal["input_text", "output_text"]
    text: str
    annotations: list[Any] | None = Field(None, description="of an earlier answer; no effect")
    logprobs: list[Any] | None = Field(None, description="of an earlier answer; no effect")


_Text = Annotated[
    list[ItemText], FAIL_FAST, BeforeValidator(text_parts("input_text"), json_schema_input_type=str | list[ItemText])
]


class Item(Body):
    """The fields that an item of an earlier answer has. They have no effect."""

    id: str | None = None
    status: ItemStatus | None = None


class MessageItem(Item):
    """One message; `developer` is OpenAI's newer name of `system`."""

    type: Literal["message"] | None = None
    role: Literal["system", "developer", "user", "assistant"]
    content: _Text
    phase: str | None = Field(None, description="of an earlier answer; no effect")


class FunctionCallItem(Item, FunctionCall):
    """A call of the assistant; `arguments` is JSON text."""

    type: Literal["function_call"]
    call_id: CallId
    namespace: str | None = Field(None, description="of an earlier answer; no effect")


class FunctionCallOutputItem(Item):
    """The result of a call."""

    type: Literal["function_call_output"]
    call_id: CallId
    output: _Text


class ReasoningItem(Item):
    """What a model that reasons has written for itself. It is left out of the prompt, as the fields have no effect."""

    type: Literal["reasoning"]
    summary: list[Any] | None = None
    content: list[Any] | None = None
    encrypted_content: str | None = None


_ITEMS = ("message", "function_call", "function_call_output", "reasoning")


def _type_of(item: Mapping[str, Any]) -> Any:
    """The type of an item. Messages and references may leave it out; a reference has an id and no role."""
    return item.get("type") or ("item_reference" if "id" in item and "role" not in item else "message")


def _known_item(item: Any) -> Any:
    if not isinstance(item, dict):
        raise PydanticCustomError("item", "Input should be an object")
    found = _type_of(item)
    if not isinstance(found, str) or found not in _ITEMS:
        raise PydanticCustomError(
            "item_type",
            "Items of the type {found} are not supported; {accepted} are",
            {"found": repr(found)[:100], "accepted": ", ".join(_ITEMS)},
        )
    return item


InputItem = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[FunctionCallOutputItem, Tag("function_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")],
    Discriminator(_type_of),
    BeforeValidator(_known_item),
]


def _items(given: Any) -> Any:
    """A string becomes a message of the user."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if not isinstance(given, list):
        raise PydanticCustomError("input", "Input should be a string or a list of items")
    return given


class ToolChoiceFunction(Body):
    """The form of `tool_choice` that names a function, without chat's nesting; named as in OpenAI's SDK."""

    type: Literal["function"]
    name: str


class ToolChoiceAllowed(Body):
    """The form of `tool_choice` that names several functions, without chat's nesting; named as in OpenAI's SDK."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[ToolChoiceFunction], Field(min_length=1)]


def _tool_choice(value: Any) -> ToolChoice:
    match value:
        case {"type": "function", "name": str(name), **more} if not more:
            return ToolChoice(mode="named", name=name)
        case {"type": "allowed_tools", "mode": mode, "tools": [*tools], **more} if not more:
            return allowed_tools(mode, tools, tools, value)
    return unnamed_tool_choice(value, '{"type": "function", "name": ...}')


class TextFormat(Body):
    """`text`, any JSON object, or JSON that a schema describes, without chat's nesting."""

    type: Literal["text", "json_object", "json_schema"]
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")] | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None
    description: str | None = None


class TextOptions(Body):
    """The form of the answer."""

    format: TextFormat | None = None


class NoOptions(Body):
    """An object without supported fields: known ones are refused, all others are reported as ignored."""


class ReasoningOptions(Body):
    """How a model reasons. The fields have no effect, because this one does not."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class ResponsesRequest(SamplingFields):
    """The body of POST /v1/responses."""

    unsupported: ClassVar[Mapping[str, Unsupported]] = {**UNSUPPORTED, **UNSUPPORTED_BY_RESPONSES}

    model: str | None = Field(None, description="one of the served names, else 404; default: the first of them")
    input: Annotated[
        list[InputItem],
        FAIL_FAST,
        Field(min_length=1, max_length=MAX_MESSAGES),
        BeforeValidator(_items, json_schema_input_type=str | list[InputItem]),
    ] = Field(
        description="a string, or items: messages, `function_call`, `function_call_output`; `reasoning` is left out"
    )
    instructions: str | None = Field(None, description="a system message in front of `input`")
    tools: Annotated[list[ToolField], FAIL_FAST, Field(max_length=MAX_TOOLS)] | None = Field(
        None,
        description="functions, also in namespaces; `strict` or not, arguments fit their schema where the answer must "
        "call; built-in tools are left out",
    )
    tool_choice: (
        Annotated[
            ToolChoice,
            PlainValidator(
                _tool_choice,
                json_schema_input_type=Literal["none", "auto", "required"] | ToolChoiceFunction | ToolChoiceAllowed,
            ),
        ]
        | None
    ) = Field(None, description="`none`, `auto`, `required`, a function by name, or `allowed_tools`")
    parallel_tool_calls: bool | None = Field(None, description="`false`: one call in an answer")
    text: TextOptions | None = Field(
        None, description="`format`: `text`, `json_object`, `json_schema`; guaranteed by guided decoding"
    )
    max_output_tokens: Annotated[int, Field(ge=1, lt=MAX_COUNT)] | None = Field(
        None, description="default: as `max_tokens` for chat"
    )
    max_tool_calls: Annotated[int, Field(ge=1, lt=MAX_COUNT)] | None = Field(
        None, description="limits built-in tools, and there are none"
    )
    metadata: Annotated[dict[str, str], Field(max_length=MAX_METADATA), at_most(MAX_METADATA)] | None = Field(
        None, description="returned in the response"
    )
    include: Annotated[list[str], FAIL_FAST] | None = Field(
        None, description="`message.output_text.logprobs`; `reasoning.encrypted_content` has no effect"
    )
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = Field(
        None,
        description="0 to 20 alternatives to each token, on a GPU if built for it; needs `include`",
    )
    stream_options: NoOptions | None = Field(None, description="no supported fields")
    store: bool | None = Field(
        None, description="with `--response-store`, whether the response is stored; default: `true`; else `false` only"
    )
    previous_response_id: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        None, description="with `--response-store`: the stored response whose conversation `input` continues"
    )
    reasoning: ReasoningOptions | None = Field(None, description="the model does not reason")


class OutputText(BaseModel):
    """The text of a message."""

    type: Literal["output_text"] = "output_text"
    annotations: list[Any] = []
    logprobs: list[TokenLogprob] = []
    text: str


class OutputMessage(BaseModel):
    """Text that the model wrote."""

    id: str
    type: Literal["message"] = "message"
    status: ItemStatus
    content: list[OutputText]
    role: Literal["assistant"] = "assistant"


class OutputFunctionCall(BaseModel):
    """A call that the model made; `arguments` is the text that it wrote."""

    id: str
    type: Literal["function_call"] = "function_call"
    status: ItemStatus
    arguments: str
    call_id: str
    name: str
    namespace: str | None = Field(None, exclude_if=lambda namespace: namespace is None)


OutputItem = OutputMessage | OutputFunctionCall


class InputTokensDetails(BaseModel):
    """`cached_tokens` is 0 unless the operator turned the report on."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputTokensDetails(BaseModel):
    """Always 0, because the model does not reason."""

    reasoning_tokens: int = 0


class ResponseUsage(BaseModel):
    """Token counts."""

    input_tokens: int
    input_tokens_details: InputTokensDetails = InputTokensDetails()
    output_tokens: int
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int


class ResponseError(BaseModel):
    """Why a stream failed."""

    code: Literal["server_error"] = "server_error"
    message: str


class IncompleteDetails(BaseModel):
    """Why an answer was cut."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class Reasoning(BaseModel):
    """The fields are always null, because the model does not reason."""

    effort: None = None
    summary: None = None


class ResponseObject(BaseModel):
    """A response: the fields of the request with their defaults filled in, and the output."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Status = "in_progress"
    background: Literal[False] = False
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    model: str
    output: Sequence[OutputItem] = ()
    parallel_tool_calls: bool
    previous_response_id: str | None = None
    reasoning: Reasoning = Reasoning()
    store: bool = False
    temperature: float
    text: dict[str, dict[str, Any]]
    tool_choice: Literal["none", "auto", "required"] | ToolChoiceFunction | ToolChoiceAllowed
    tools: Sequence[ResponseTool | Namespace]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsage | None = None
    user: str | None
    metadata: dict[str, str]


class DeletedResponse(BaseModel):
    """A stored response that is gone."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True
