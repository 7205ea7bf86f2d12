"""Conversations and tools as transformers gives them to chat templates: documents of plain dicts.

Mistral's templates write some texts into JSON without quoting them, where mistral-common quotes: done here for those
that do not. Refuses words of its own. Of an answer with text and calls they show the calls alone, which is Mistral's
rule too: there the two never meet.
"""

from dataclasses import dataclass
from typing import Any

import orjson

from .messages import Message
from .tool_prompt import as_json, function_document, to_json
from .tools import Tool, ToolCall, to_mistral_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Unquoted:
    """What a template puts into JSON as it is."""

    results: bool = False
    descriptions: bool = False


def tool_document(tool: Tool, unquoted: Unquoted) -> dict[str, Any]:
    """A tool as OpenAI writes it."""
    function = function_document(tool)
    if unquoted.descriptions and tool.description is not None:
        function["description"] = to_json(tool.description)[1:-1]
    return {"type": "function", "function": function}


def message_document(message: Message, unquoted: Unquoted) -> dict[str, Any]:
    """A message; templates ask whether it has `tool_calls`, so only those that call have the key."""
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
