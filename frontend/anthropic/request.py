"""A body of Anthropic's Messages API to a job of one generation: check, prompt, tokens, sampling parameters. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence

from frontend.errors import InvalidRequest
from frontend.guided_decoding import Constraint
from frontend.openai.job import Job
from frontend.openai.prompt_size import check_chars, max_prompt_tokens, to_token_ids
from frontend.openai.reply import Reply
from frontend.openai.requests import to_parsers, to_requests
from frontend.openai.structured_output import format_constraint, to_constraint
from frontend.openai.tools.convert import stray_result, to_result, to_tool_use
from frontend.openai.unsupported import check_supported
from frontend.text.chat_template import Rendering
from frontend.text.escape import EscapeSpecialTokens, escape_strings, escape_tool_use
from frontend.text.messages import Message, Role, join_texts
from frontend.text.served_model import ServedModel
from frontend.text.tool_prompt import canonical_json
from frontend.text.tools import ToolCall, ToolChoice, ToolUse

from .response import MessagesWriter
from .types import (
    ClientTool,
    InputMessage,
    MessagesRequest,
    PromptFields,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
)

_DEFAULT_TEMPERATURE = 1.0
"""Anthropic's."""

_BILLING_HEADER = "x-anthropic-billing-header"
"""How a system block of Claude Code begins that differs in every request. At the beginning of the prompt it would keep
the engine from reusing its KV cache, so it is left out, as in vLLM (entrypoints/anthropic/serving.py)."""

_BLOCKS: Mapping[Role, Sequence[type]] = {
    "system": (TextBlock,),
    "user": (TextBlock, ToolResultBlock),
    "assistant": (TextBlock, ToolUseBlock, ThinkingBlock),
}
"""The blocks that a message of each role may have."""


def to_messages_job(body: MessagesRequest, model: ServedModel, reply: Reply, *, seed: int) -> Job:
    """The job of a checked body. `seed` is for a body without one. Raises InvalidRequest naming the field.

    As with Anthropic's newer models, an answer whose `max_tokens` do not fit beside the prompt may fill the context.
    """
    check_supported(body)
    tool_use = tool_use_of(body)
    constraint = to_constraint(body, _format_constraint(body), model, tool_use)
    prompt = render_prompt(body, tool_use, model, max_tokens=max_prompt_tokens(body, model))
    token_ids = to_token_ids(model.tokenizer.encode_in_pieces(prompt), model)
    max_tokens = _max_tokens(body, len(token_ids), model)
    requests = to_requests(
        body,
        [token_ids],
        model,
        max_tokens=max_tokens,
        default_temperature=_DEFAULT_TEMPERATURE,
        seed=seed,
        tool_use=tool_use,
    )
    parsers = to_parsers(tool_use, model, 1)
    writer = MessagesWriter(
        reply,
        num_prompt_tokens=len(requests[0].prompt_token_ids),
        parser=parsers[0] if parsers else None,
        at_limit="max_tokens" if max_tokens == body.max_tokens else "model_context_window_exceeded",
    )
    return Job(
        id=reply.id,
        model=reply.model,
        requests=requests,
        writer=writer,
        stream=bool(body.stream),
        constraint=constraint,
    )


def tool_use_of(body: PromptFields) -> ToolUse:
    """The tools of a body and how the answer may call them. Raises InvalidRequest."""
    functions = {f"tools[{index}]": tool for index, tool in enumerate(body.tools or ()) if isinstance(tool, ClientTool)}
    if (given := body.tool_choice) is None:
        return to_tool_use(functions, None, None)
    if (given.type == "tool") != (given.name is not None):
        raise InvalidRequest("`tool_choice` has a `name` exactly if its `type` is `tool`.", param="tool_choice.name")
    match given.type:
        case "auto" | "none":
            choice = ToolChoice(mode=given.type)
        case "any":
            choice = ToolChoice(mode="required")
        case "tool":
            choice = ToolChoice(mode="named", name=given.name or "")
    return to_tool_use(functions, choice, not given.disable_parallel_tool_use)


def render_prompt(body: PromptFields, tool_use: ToolUse, model: ServedModel, *, max_tokens: int | None = None) -> str:
    """The prompt text. `max_tokens` is the most that it may have: see `prompt_size.check_chars`.

    If the last message is the assistant's, the answer continues it. Raises InvalidRequest naming the field.
    """
    check_chars(_texts(body), model, max_tokens)
    escape = model.tokenizer.escape_special_tokens
    conversation = _conversation(body, escape)
    continues = conversation[-1].role == "assistant"
    rendering = Rendering(
        add_generation_prompt=not continues,
        continue_final_message=continues,
        variables=escape_strings(body.chat_template_kwargs or {}, escape),
    )
    return model.template.render(conversation, escape_tool_use(tool_use, escape), rendering)


def _max_tokens(body: MessagesRequest, num_prompt_tokens: int, model: ServedModel) -> int:
    """What `max_tokens` is beside the prompt. One that leaves no room, or is cut itself, is dealt with later."""
    room = model.engine.max_seq_len - num_prompt_tokens
    return body.max_tokens if room < 1 or body.truncate_prompt_tokens is not None else min(body.max_tokens, room)


def _format_constraint(body: PromptFields) -> Constraint | None:
    if body.output_config is None or (given := body.output_config.format) is None:
        return None
    return format_constraint(given.type, given.schema_, "output_config.format", "output_config.format")


def _texts(body: PromptFields) -> Iterator[str]:
    """The client's texts, for their length."""
    yield from (block.text for block in body.system or ())
    for message in body.messages:
        for block in message.content:
            if isinstance(block, TextBlock):
                yield block.text
            elif isinstance(block, ToolResultBlock):
                yield from (part.text for part in block.content or ())


def _conversation(body: PromptFields, escape: EscapeSpecialTokens) -> list[Message]:
    """The messages, escaped, with the system prompt in front. Raises InvalidRequest."""
    located = [
        (param, message)
        for index, given in enumerate(body.messages)
        for param, message in _to_messages(given, f"messages[{index}]", escape)
    ]
    if located[-1][1] == Message("assistant", "") and len(located) > 1:
        located.pop()  # an answer that continues nothing begins anew
    messages = [message for _, message in located]
    if (stray := stray_result(messages)) is not None:
        raise InvalidRequest(
            "A `tool_result` must be in the message after the assistant's `tool_use` with its id.",
            param=f"{located[stray][0]}.tool_use_id",
        )
    if messages[-1].tool_calls:
        raise InvalidRequest("The last message has `tool_use` blocks; results must follow them.", param="messages")
    system = join_texts(block.text for block in body.system or () if not block.text.startswith(_BILLING_HEADER))
    return [Message("system", escape(system)), *messages] if system else messages


def _to_messages(given: InputMessage, param: str, escape: EscapeSpecialTokens) -> Iterator[tuple[str, Message]]:
    """Each result of a call as a message of its own, then the rest; with their paths in the request."""
    texts: list[str] = []
    calls: list[ToolCall] = []
    results: list[tuple[str, Message]] = []
    for index, block in enumerate(given.content):
        path = f"{param}.content[{index}]"
        if not isinstance(block, tuple(_BLOCKS[given.role])):
            raise InvalidRequest(f"A message of the role `{given.role}` has no `{block.type}` blocks.", param=path)
        if isinstance(block, TextBlock):
            texts.append(block.text)
        elif isinstance(block, ToolUseBlock):
            calls.append(_to_call(block, path, escape))
        elif isinstance(block, ToolResultBlock):
            results.append((path, to_result(block.tool_use_id, _text_of(block), escape=escape)))
    yield from results
    if texts or not results:
        yield param, Message(given.role, escape(join_texts(texts)), tuple(calls))


def _to_call(block: ToolUseBlock, param: str, escape: EscapeSpecialTokens) -> ToolCall:
    arguments = canonical_json(json.dumps(block.input))
    if arguments is None:
        raise InvalidRequest("The input cannot be written as JSON.", param=f"{param}.input")
    return ToolCall(id=block.id, name=block.name, arguments=escape(arguments))


def _text_of(block: ToolResultBlock) -> str:
    text = join_texts(part.text for part in block.content or ())
    return f"Error: {text}" if block.is_error else text
