"""POST /v1/messages and /v1/messages/count_tokens."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from frontend.openai.body import Body, Unsupported
from frontend.openai.fields import (
    FAIL_FAST,
    MAX_COUNT,
    MAX_MESSAGES,
    MAX_STOP_LENGTH,
    MAX_STOP_STRINGS,
    SamplingFields,
    StopString,
    text_parts,
)
from frontend.openai.tools.types import MAX_TOOLS, FunctionDefinition
from frontend.openai.unsupported import UNSUPPORTED

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"]

_UNSUPPORTED_BY_MESSAGES: Mapping[str, Unsupported] = {
    "stop": Unsupported("use `stop_sequences`", ([],)),
    "thread": Unsupported("nothing is kept here; send the whole conversation as `messages`"),
    "prompt_logprobs": Unsupported("a message has no field for them"),
    "output_format": Unsupported("use `output_config.format`"),
}
"""These come on top of the parameters that every endpoint refuses."""

_KINDS: Mapping[str, str] = {
    "text": "a text",
    "tool_use": "a call",
    "tool_result": "a result",
    "thinking": "a thought",
    "redacted_thinking": "a thought",
}
"""Tags of the types of blocks. They have spaces, so that no field of a block has the same name."""

_TEXT_ONLY = ("image", "document")

_ANTHROPICS_TOOL = re.compile(r"[a-z_]+_20[0-9]{6}")
"""The types of Anthropic's own tools end with a date: `web_search_20250305`, `bash_20250124`."""

Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]
"""Anthropic's rule for the names of tools."""

CallId = Annotated[str, Field(min_length=1, max_length=256)]


def _known(accepted: Sequence[str]) -> Callable[[Any], Any]:
    """A validator that refuses blocks of all other types by name."""

    def check(block: Any) -> Any:
        if not isinstance(block, dict):
            raise PydanticCustomError("block", "Input should be an object")
        found = block.get("type")
        if found not in accepted:
            raise PydanticCustomError(
                "block_type",
                "Blocks of the type {found} are not supported{why}; {accepted} are",
                {
                    "found": repr(found)[:100],
                    "why": ", as the model knows text only" if found in _TEXT_ONLY else "",
                    "accepted": ", ".join(accepted),
                },
            )
        return block

    return check


class _Cached(Body):
    """What may mark the end of a cached prefix. Every prefix is cached anyway, so the mark has no effect."""

    cache_control: dict[str, Any] | None = None


class TextBlock(_Cached):
    """Text, of the client or of an earlier answer."""

    type: Literal["text"]
    text: str
    citations: list[Any] | None = Field(None, description="of an earlier answer; no effect")


_Texts = Annotated[
    list[Annotated[TextBlock, BeforeValidator(_known(["text"]))]],
    FAIL_FAST,
    BeforeValidator(text_parts("text"), json_schema_input_type=str | list[TextBlock]),
]


class ToolUseBlock(_Cached):
    """A call of an earlier answer."""

    type: Literal["tool_use"]
    id: CallId
    name: Name
    input: dict[str, Any]


class ToolResultBlock(_Cached):
    """The result of a call; one that is an error begins with `Error: ` in the prompt."""

    type: Literal["tool_result"]
    tool_use_id: CallId
    content: _Texts | None = None
    is_error: bool | None = None


class ThinkingBlock(Body):
    """What a model that reasons has written for itself. It is left out of the prompt."""

    type: Literal["thinking", "redacted_thinking"]
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None


AnyBlock = Annotated[
    Annotated[TextBlock, Tag("a text")]
    | Annotated[ToolUseBlock, Tag("a call")]
    | Annotated[ToolResultBlock, Tag("a result")]
    | Annotated[ThinkingBlock, Tag("a thought")],
    Discriminator(lambda block: _KINDS[block["type"]]),
    BeforeValidator(_known(list(_KINDS))),
]


class InputMessage(Body):
    """One message. Results of calls are blocks of the user's message after the calls."""

    role: Literal["user", "assistant", "system"]
    content: Annotated[
        list[AnyBlock], FAIL_FAST, BeforeValidator(text_parts("text"), json_schema_input_type=str | list[AnyBlock])
    ]


class ClientTool(FunctionDefinition, _Cached):
    """A tool that the client runs."""

    type: Literal["custom"] | None = None
    name: Name
    parameters: dict[str, Any] = Field(alias="input_schema")


class AnthropicsTool(Body):
    """A tool of Anthropic's, which the model is not offered: its type becomes an undeclared field."""


def _kind_of_tool(tool: Any) -> str:
    kind = tool.get("type") if isinstance(tool, dict) else None
    return "Anthropic's tool" if isinstance(kind, str) and _ANTHROPICS_TOOL.fullmatch(kind) else "the client's tool"


ToolField = Annotated[
    Annotated[ClientTool, Tag("the client's tool")]
    | Annotated[
        AnthropicsTool,
        BeforeValidator(lambda tool: {tool["type"]: tool}, json_schema_input_type=dict[str, Any]),
        Tag("Anthropic's tool"),
    ],
    Discriminator(_kind_of_tool),
]


class ToolChoiceField(Body):
    """How the answer may call tools: if it likes (`auto`), at least one (`any`), the one named (`tool`), or none."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class OutputFormat(Body):
    """JSON that a schema describes."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Body):
    """The format of the answer. `effort` has no effect: the model does not reason."""

    effort: str | None = None
    format: OutputFormat | None = None


class PromptFields(Body):
    """The fields that both routes have."""

    unsupported: ClassVar[Mapping[str, Unsupported]] = {**UNSUPPORTED, **_UNSUPPORTED_BY_MESSAGES}

    model: str | None = Field(None, description="one of the served names, else 404; default: the first of them")
    messages: Annotated[list[InputMessage], FAIL_FAST, Field(min_length=1, max_length=MAX_MESSAGES)]
    system: _Texts | None = Field(None, description="a system message in front of `messages`: a string or text blocks")
    tools: Annotated[list[ToolField], FAIL_FAST, Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoiceField | None = None
    output_config: OutputConfig | None = Field(
        None, description="`format`: a JSON schema, guaranteed by guided decoding; `effort` has no effect"
    )
    thinking: dict[str, Any] | None = Field(None, description="the model does not reason")
    cache_control: dict[str, Any] | None = Field(None, description="every prefix is cached anyway")
    chat_template_kwargs: dict[str, Any] | None = Field(None, description="variables for the chat template")


class MessagesRequest(SamplingFields, PromptFields):
    """The body of POST /v1/messages; vLLM's sampling parameters may be sent beside Anthropic's."""

    unsupported: ClassVar[Mapping[str, Unsupported]] = PromptFields.unsupported

    max_tokens: Annotated[int, Field(ge=1, lt=MAX_COUNT)]
    stop: Annotated[list[StopString], FAIL_FAST, Field(max_length=MAX_STOP_STRINGS)] | None = Field(
        None,
        alias="stop_sequences",
        description=f"up to {MAX_STOP_STRINGS} strings of up to {MAX_STOP_LENGTH} characters; the text ends before "
        "the first match, which is the `stop_sequence`",
    )


class CountTokensRequest(PromptFields):
    """The body of POST /v1/messages/count_tokens."""


class CountTokensResponse(BaseModel):
    """The tokens of the prompt that the engine would get."""

    input_tokens: int


class TextContent(BaseModel):
    """What the model wrote."""

    type: Literal["text"]
    text: str


class ToolUseContent(BaseModel):
    """A call."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class MessageUsage(BaseModel):
    """Token counts. The prompt has all three kinds of input tokens; the cached ones are null unless they are known."""

    input_tokens: int
    cache_creation_input_tokens: int | None
    cache_read_input_tokens: int | None
    output_tokens: int


class MessageObject(BaseModel):
    """A complete reply."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    content: Sequence[TextContent | ToolUseContent]
    model: str
    stop_reason: StopReason
    stop_sequence: str | None
    usage: MessageUsage


class ErrorDetail(BaseModel):
    """What went wrong."""

    type: str
    message: str
    details: dict[str, Any] | None = Field(None, exclude_if=lambda details: details is None)


_MODEL_NOT_FOUND: JsonDict = {
    "type": "error",
    "error": {
        "type": "not_found_error",
        "message": "`model`: The model `gpt-4` does not exist. Served here: `mixtral`.",
    },
    "request_id": "req_0a1b2c",
}


class MessagesErrorBody(BaseModel):
    """The body of every response with an error status."""

    model_config = ConfigDict(json_schema_extra={"examples": [_MODEL_NOT_FOUND]})

    type: Literal["error"]
    error: ErrorDetail
    request_id: str | None
