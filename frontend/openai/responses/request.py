"""A body of OpenAI's Responses API to a job of one generation: check, prompt, tokens, sampling parameters. Pure."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

from frontend.errors import InvalidRequest, UnsupportedParameter
from frontend.guided_decoding import Constraint
from frontend.openai.job import Job
from frontend.openai.prompt_size import check_chars, max_prompt_tokens, to_token_ids
from frontend.openai.reply import Reply
from frontend.openai.requests import check_alternatives, to_parsers, to_requests
from frontend.openai.sampling import DEFAULT_TEMPERATURE, WantedLogprobs, with_defaults
from frontend.openai.structured_output import format_constraint, to_constraint
from frontend.openai.tools.convert import stray_result, to_result, to_tool_call, to_tool_use
from frontend.openai.unsupported import check_supported
from frontend.text.escape import EscapeSpecialTokens, escape_tool_use
from frontend.text.messages import Message, join_texts
from frontend.text.served_model import ServedModel
from frontend.text.tools import ToolChoice, ToolUse

from .conversation import Conversation, check_memory, to_stored
from .response import ResponsesWriter
from .tools import BuiltInTool, functions_of, namespaces_of
from .types import (
    FunctionCallItem,
    FunctionCallOutputItem,
    ItemText,
    MessageItem,
    ReasoningItem,
    ResponseObject,
    ResponsesRequest,
    ToolChoiceAllowed,
    ToolChoiceFunction,
)

_LOGPROBS = "message.output_text.logprobs"
"""The value of `include` that has an effect."""

_NO_REASONING = "reasoning.encrypted_content"
"""Accepted too, as there is nothing that it could include: the model does not reason."""

_OWN_NAMES = {"messages": "input", "prompt": "input", "logprobs": "include"}
"""Chat's names of fields, and the fields of this API that have the same content."""


def to_responses_job(
    given: ResponsesRequest, model: ServedModel, reply: Reply, *, seed: int, earlier: Conversation | None = None
) -> Job:
    """The job of a checked body. `seed` is for a body without one; `earlier` is None where nothing is stored.

    Raises InvalidRequest naming the field.
    """
    check_supported(given)
    check_memory(given, earlier)
    body = given if earlier is None else earlier.before(given)
    num_earlier = len(body.input) - len(given.input)
    tool_use = _tool_use_of(body)
    wanted = _wanted_logprobs(body, tool_use, model)
    constraint = to_constraint(body, _text_format_constraint(body), model, tool_use)
    with _own_names():
        check_chars(_texts(body), model, max_prompt_tokens(body, model))
        escaped = escape_tool_use(tool_use, model.tokenizer.escape_special_tokens)
        prompt = model.template.render(_to_messages(body, model, num_earlier), escaped)
        requests = to_requests(
            body,
            [to_token_ids(model.tokenizer.encode_in_pieces(prompt), model)],
            model,
            max_tokens=body.max_output_tokens,
            default_temperature=DEFAULT_TEMPERATURE,
            wanted=wanted,
            seed=seed,
            tool_use=tool_use,
        )
    parsers = to_parsers(tool_use, model, 1)
    is_stored = earlier is not None and body.store is not False
    writer = ResponsesWriter(
        _to_response(with_defaults(body, model.sampling_defaults), reply, is_stored=is_stored),
        parsers[0] if parsers else None,
        namespaces_of(body.tools or ()),
    )
    return Job(
        id=reply.id,
        model=reply.model,
        requests=requests,
        writer=writer,
        stream=bool(body.stream),
        with_tokens=wanted.logprobs,
        constraint=constraint,
        to_stored=partial(to_stored, body.input, writer) if is_stored else None,
    )


def _tool_use_of(body: ResponsesRequest) -> ToolUse:
    return to_tool_use(functions_of(body.tools or ()), body.tool_choice, body.parallel_tool_calls)


def _text_format_constraint(body: ResponsesRequest) -> Constraint | None:
    """The constraint of `text.format`, which has the fields of `response_format` without the nesting."""
    if body.text is None or (given := body.text.format) is None:
        return None
    return format_constraint(given.type, None if given.name is None else given.schema_, "text.format", "text.format")


def _wanted_logprobs(body: ResponsesRequest, tool_use: ToolUse, model: ServedModel) -> WantedLogprobs:
    """Raises InvalidRequest and UnsupportedParameter."""
    logprobs = _logprobs(body.include or (), tool_use)
    if body.top_logprobs and not logprobs:
        raise InvalidRequest(f"`top_logprobs` needs `{_LOGPROBS}` in `include`.", param="top_logprobs")
    check_alternatives(model, top_logprobs=bool(body.top_logprobs))
    return WantedLogprobs(logprobs=logprobs, top_logprobs=body.top_logprobs or 0)


def _logprobs(include: Sequence[str], tool_use: ToolUse) -> bool:
    """Whether `include` asks for log probabilities."""
    if others := [name for name in include if name not in (_LOGPROBS, _NO_REASONING)]:
        raise UnsupportedParameter(f"`include` has `{others[0][:100]}`; accepted: `{_LOGPROBS}`.", param="include")
    if _LOGPROBS in include and tool_use.tools:
        raise UnsupportedParameter(
            f"`{_LOGPROBS}` does not go with functions that may be called: calls have none.", param="include"
        )
    return _LOGPROBS in include


@contextmanager
def _own_names() -> Iterator[None]:
    """Errors raised inside name the fields of this API instead of chat's."""
    try:
        yield
    except InvalidRequest as error:
        error.param = _OWN_NAMES.get(error.param or "", error.param)
        raise


def _texts(body: ResponsesRequest) -> Iterator[str]:
    """The client's texts, for their length."""
    yield body.instructions or ""
    for item in body.input:
        if isinstance(item, MessageItem | FunctionCallOutputItem):
            yield from (part.text for part in (item.content if isinstance(item, MessageItem) else item.output))


def _to_messages(body: ResponsesRequest, model: ServedModel, num_earlier: int) -> list[Message]:
    """The conversation, escaped. Text and calls of the assistant that follow one another become one message.

    The first `num_earlier` items are not of the request, and were checked when they were.
    """
    escape = model.tokenizer.escape_special_tokens
    messages: list[Message] = []
    input_indices: list[int] = []
    for index, item in enumerate(body.input, -num_earlier):
        if isinstance(item, ReasoningItem):
            continue
        message = _to_message(item, f"input[{index}]", escape)
        if messages and _is_one_message(messages[-1], message):
            message = _joined(messages.pop(), message)
            input_indices.pop()
        messages.append(message)
        input_indices.append(index)
    if not messages:
        raise InvalidRequest("`input` has `reasoning` only; accepted: at least one other item.", param="input")
    if (stray := stray_result(messages)) is not None:
        raise InvalidRequest(
            "A `function_call_output` must follow the `function_call` with its `call_id`.",
            param=f"input[{input_indices[stray]}].call_id",
        )
    return [Message("system", escape(body.instructions)), *messages] if body.instructions else messages


def _to_message(
    item: MessageItem | FunctionCallItem | FunctionCallOutputItem, param: str, escape: EscapeSpecialTokens
) -> Message:
    if isinstance(item, FunctionCallItem):
        return Message("assistant", "", (to_tool_call(item.call_id, item, escape=escape, param=param),))
    if isinstance(item, FunctionCallOutputItem):
        return to_result(item.call_id, _text_of(item.output), escape=escape)
    return Message("system" if item.role == "developer" else item.role, escape(_text_of(item.content)))


def _text_of(parts: Sequence[ItemText]) -> str:
    return join_texts(part.text for part in parts)


def _is_one_message(last: Message, message: Message) -> bool:
    """Whether text and calls of the assistant belong together. Two texts do not: the template's rules join them."""
    return last.role == message.role == "assistant" and bool(last.tool_calls or message.tool_calls)


def _joined(last: Message, message: Message) -> Message:
    return Message("assistant", join_texts([last.content, message.content]), (*last.tool_calls, *message.tool_calls))


def _to_response(body: ResponsesRequest, reply: Reply, *, is_stored: bool) -> dict[str, Any]:
    """The ResponseObject before there is any output: the request's fields with their defaults filled in."""
    text_format = {"type": "text"}
    if body.text is not None and body.text.format is not None:
        text_format = body.text.format.model_dump(by_alias=True, exclude_none=True)
    response = ResponseObject(
        id=reply.id,
        created_at=reply.created,
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        max_tool_calls=body.max_tool_calls,
        model=reply.model,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        previous_response_id=body.previous_response_id,
        store=is_stored,
        temperature=DEFAULT_TEMPERATURE if body.temperature is None else body.temperature,
        text={"format": text_format},
        tool_choice=_choice_on_the_wire(body.tool_choice),
        tools=[tool for tool in body.tools or () if not isinstance(tool, BuiltInTool)],
        top_logprobs=body.top_logprobs or 0,
        top_p=1.0 if body.top_p is None else body.top_p,
        user=body.user,
        metadata=body.metadata or {},
    )
    return response.model_dump()


def _choice_on_the_wire(
    choice: ToolChoice | None,
) -> Literal["none", "auto", "required"] | ToolChoiceFunction | ToolChoiceAllowed:
    if choice is None:
        return "auto"
    if choice.mode == "named":
        return ToolChoiceFunction(type="function", name=choice.name)
    if not choice.allowed or choice.mode == "none":
        return choice.mode
    tools = [ToolChoiceFunction(type="function", name=name) for name in choice.allowed]
    return ToolChoiceAllowed(type="allowed_tools", mode=choice.mode, tools=tools)
