"""Messages and tools as the plain dicts that transformers passes to chat templates.

Some of Mistral's templates write texts into JSON without quoting them, while mistral-common quotes them. For such a
template they are quoted here. Of a message with text and calls, Mistral's templates show only the calls; Mistral's v3
format has no message with both.
"""

from dataclasses import dataclass
from typing import Any

import orjson

from .messages import Message
from .tool_prompt import as_json, function_document, to_json
from .tools import Tool, ToolCall, to_mistral_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Unquoted:
    """The texts that a template writes into JSON without quoting them."""

    results: bool = False
    descriptions: bool = False


def tool_document(tool: Tool, unquoted: Unquoted) -> dict[str, Any]:
    """A tool as OpenAI writes it."""
    function = function_document(tool)
    if unquoted.descriptions and tool.description is not None:
        function["description"] = to_json(tool.description)[1:-1]
    return {"type": "function", "function": function}


def message_document(message: Message, unquoted: Unquoted) -> dict[str, Any]:
    """A message. The key `tool_calls` is there only if there are calls, because templates test for it."""
    document: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        document["tool_calls"] = [_call_document(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        document["tool_call_id"] = to_mistral_id(message.tool_call_id)
        document["content"] = as_json(message.content) if unquoted.results else message.content
    return document


def _call_document(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": orjson.loads(call.arguments)}
    return {"type": "function", "id": to_mistral_id(call.id), "function": function}
