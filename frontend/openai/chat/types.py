"""POST /v1/chat/completions."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from frontend.generation import FinishReason
from frontend.openai.body import Body
from frontend.openai.fields import (
    FAIL_FAST,
    MAX_COUNT,
    MAX_MESSAGES,
    MAX_TOP_LOGPROBS,
    CompletionFields,
    TokenLogprob,
    UsageBody,
    text_parts,
)
from frontend.openai.tools.types import FunctionToolCall, ToolChoiceField, ToolList, ToolMessageFields


class TextPart(Body):
    """The one kind of content part that a text model takes."""

    type: Literal["text"]
    text: str


class ChatMessage(ToolMessageFields):
    """One message; `developer` is OpenAI's newer name of `system`."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: (
        Annotated[
            list[TextPart], FAIL_FAST, BeforeValidator(text_parts("text"), json_schema_input_type=str | list[TextPart])
        ]
        | None
    ) = None


MessageList = Annotated[list[ChatMessage], FAIL_FAST, Field(min_length=1, max_length=MAX_MESSAGES)]
"""`messages` of a request."""


class PromptFields(Body):
    """The fields that a prompt is made of, beside the messages."""

    tools: ToolList | None = Field(
        None, description="functions; `strict` or not, arguments fit their schema where the answer must call"
    )
    tool_choice: ToolChoiceField | None = Field(
        None, description="`none`, `auto`, `required`, a function by name, or `allowed_tools`"
    )
    parallel_tool_calls: bool | None = Field(None, description="`false`: one call in an answer")
    add_generation_prompt: bool | None = Field(None, description="passed to the chat template")
    continue_final_message: bool | None = Field(
        None, description="the answer continues the last message; needs `add_generation_prompt` to be `false`"
    )
    chat_template: str | None = Field(None, description="if the operator allows it (`--allow-chat-template`)")
    chat_template_kwargs: dict[str, Any] | None = Field(None, description="variables for the chat template")


class ChatCompletionRequest(CompletionFields, PromptFields):
    """The body of POST /v1/chat/completions."""

    model: str | None = Field(None, description="one of the served names, else 404; default: the first of them")
    messages: MessageList = Field(
        description="roles `system`, `developer`, `user`, `assistant`, `tool`; `content` is text or text parts"
    )
    max_completion_tokens: Annotated[int, Field(ge=1, lt=MAX_COUNT)] | None = Field(
        None, description="the newer name of `max_tokens`, and the one that counts if both are sent"
    )
    reasoning_effort: str | None = Field(None, description="the model does not reason")
    logprobs: bool | None = Field(
        None, description="of the chosen tokens; for completions a number, 0 to 20, of alternatives to each"
    )
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = Field(
        None,
        description="0 to 20 alternatives to each token, on a GPU if built for it; "
        "needs `logprobs`, for responses `include`",
    )


class ChatLogprobs(BaseModel):
    """OpenAI's shape for chat."""

    content: list[TokenLogprob]
    refusal: None = None


class AssistantMessage(BaseModel):
    """What the model wrote. A leading space is kept."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    tool_calls: list[FunctionToolCall] | None = None


class ChatChoice(BaseModel):
    """One answer; `stop_reason` is the stop string or stop token id that ended it."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | Literal["tool_calls"]
    stop_reason: str | int | None


class ChatCompletion(BaseModel):
    """A complete reply, with vLLM 0.4's fields in its order."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: Sequence[ChatChoice]
    usage: UsageBody
