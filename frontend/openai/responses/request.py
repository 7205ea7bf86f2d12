"""A body of OpenAI's Responses API to the one generation it asks for. Pure.

Refuses whatever needs a memory: earlier responses, stored prompts, conversations. How the answer is written is
responses_reply.py's matter.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from frontend.errors import InvalidRequest, UnsupportedParameter
from frontend.openai.reply import Job, Reply
from frontend.openai.requests import check_alternatives, to_parsers, to_requests
from frontend.openai.sampling import DEFAULT_TEMPERATURE, check_supported
from frontend.openai.tools.convert import (
    EscapeSpecialTokens,
    escape_tool_use,
    stray_result,
    to_result,
    to_tool_call,
    to_tool_use,
)
from frontend.text.messages import Message, join_texts
from frontend.text.served_model import ServedModel
from frontend.text.tools import ToolChoice, ToolUse

from .response import ResponsesFormat
from .types import (
    FunctionCallItem,
    FunctionCallOutputItem,
    InputItem,
    NamedToolChoice,
    ResponseObject,
    ResponsesRequest,
    TextPart,
)

LOGPROBS = "message.output_text.logprobs"
"""What `include` may ask for."""


def to_responses_job(body: ResponsesRequest, model: ServedModel, reply: Reply, *, seed: int, guide: str | None) -> Job:
    """Check a body and put it in our words. `seed` is for a body without one, `guide` what the answer must follow."""
    check_supported(body)
    check_alternatives("top_logprobs", body.top_logprobs)
    tool_use = responses_tool_use(body)
    logprobs = _logprobs(body.include or (), tool_use)
    with _own_names():
        prompt = model.template.render(
            _to_messages(body, model), escape_tool_use(tool_use, model.tokenizer.escape_special_tokens)
        )
        requests = to_requests(
            body,
            [model.tokenizer.encode(prompt)],
            model,
            max_tokens=body.max_output_tokens,
            default_temperature=DEFAULT_TEMPERATURE,
            logprobs=logprobs,
            seed=seed,
            guide=guide,
            tool_use=tool_use,
        )
    parser = next(iter(to_parsers(tool_use, model, 1)), None)
    return Job(
        id=reply.id,
        requests=requests,
        format=ResponsesFormat(_to_response(body, reply), parser),
        stream=bool(body.stream),
        with_tokens=logprobs,
    )


def responses_tool_use(body: ResponsesRequest) -> ToolUse:
    """What a body wants of tools. Raises InvalidRequest."""
    functions = {f"tools[{index}]": tool for index, tool in enumerate(body.tools or ())}
    return to_tool_use(functions, body.tool_choice, body.parallel_tool_calls)


def _logprobs(include: Sequence[str], tool_use: ToolUse) -> bool:
    """Whether log probabilities are asked for, the one thing that can be."""
    if others := [name for name in include if name != LOGPROBS]:
        raise UnsupportedParameter(f"`include` has `{others[0][:100]}`; accepted: `{LOGPROBS}`.", param="include")
    if include and tool_use.tools:
        raise UnsupportedParameter(
            f"`{LOGPROBS}` does not go with functions that may be called: calls have none.", param="include"
        )
    return bool(include)


_OWN_NAMES = {"messages": "input", "prompt": "input", "logprobs": "include"}
"""Fields as chat has them, and the ones that the same things come from here."""


@contextmanager
def _own_names() -> Iterator[None]:
    """What is wrong inside is told with the fields of this API."""
    try:
        yield
    except InvalidRequest as error:
        error.param = _OWN_NAMES.get(error.param or "", error.param)
        raise


def _to_messages(body: ResponsesRequest, model: ServedModel) -> list[Message]:
    """The conversation, shielded. What the assistant says and calls one after the other is one message of it."""
    escape = model.tokenizer.escape_special_tokens
    messages: list[Message] = []
    places: list[int] = []
    for index, item in enumerate(body.input):
        message = _to_message(item, f"input[{index}]", escape)
        if messages and _is_one_turn(messages[-1], message):
            message = _joined(messages.pop(), message)
            places.pop()
        messages.append(message)
        places.append(index)
    if (stray := stray_result(messages)) is not None:
        raise InvalidRequest(
            "A `function_call_output` must follow the `function_call` with its `call_id`.",
            param=f"input[{places[stray]}].call_id",
        )
    return [Message("system", escape(body.instructions)), *messages] if body.instructions else messages


def _to_message(item: InputItem, param: str, escape: EscapeSpecialTokens) -> Message:
    if isinstance(item, FunctionCallItem):
        return Message("assistant", "", (to_tool_call(item.call_id, item, escape=escape, param=param),))
    if isinstance(item, FunctionCallOutputItem):
        return to_result(item.call_id, _text_of(item.output), escape=escape)
    return Message("system" if item.role == "developer" else item.role, escape(_text_of(item.content)))


def _text_of(parts: Sequence[TextPart]) -> str:
    return join_texts(part.text for part in parts)


def _is_one_turn(last: Message, message: Message) -> bool:
    """Words alone are left to the template's rules."""
    return last.role == message.role == "assistant" and bool(last.tool_calls or message.tool_calls)


def _joined(last: Message, message: Message) -> Message:
    return Message("assistant", join_texts([last.content, message.content]), (*last.tool_calls, *message.tool_calls))


def _to_response(body: ResponsesRequest, reply: Reply) -> dict[str, Any]:
    """The answer, a ResponseObject, before it begins: what was asked for, as it was understood."""
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
        temperature=DEFAULT_TEMPERATURE if body.temperature is None else body.temperature,
        text={"format": text_format},
        tool_choice=_told_choice(body.tool_choice),
        tools=body.tools or (),
        top_logprobs=body.top_logprobs or 0,
        top_p=1.0 if body.top_p is None else body.top_p,
        user=body.user,
        metadata=body.metadata or {},
    )
    return response.model_dump()


def _told_choice(choice: ToolChoice | None) -> Literal["none", "auto", "required"] | NamedToolChoice:
    if choice is None:
        return "auto"
    return NamedToolChoice(type="function", name=choice.name) if choice.mode == "named" else choice.mode
