"""Tools as text, for templates that do not know tools: a preamble in the system prompt, and calls and results as text.

Calls and results begin with Mistral's own markers. These are encoded as special tokens if the vocabulary has them, and
as text otherwise. In all text of the client, special tokens must be escaped.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from .messages import Message, join_texts
from .tools import TOOL_CALLS, Tool, ToolCall, ToolChoice, ToolUse

_TOOL_RESULTS = "[TOOL_RESULTS]"
"""Mistral's marker before a result."""

_PREAMBLE = """\
You can call these functions:
{functions}
To call {how_many}, answer with exactly this and nothing else, the arguments as the function's parameters demand:
{marker} [{{"name": ..., "arguments": {{...}}}}{more}]
What a function returns is then told to you after {results}. If no function is needed, answer in words."""


def write_out(messages: Sequence[Message], tool_use: ToolUse) -> list[Message]:
    """The conversation with everything about tools as text: without `tool_calls` and the role `tool`."""
    written = [*_write_messages(messages)]
    if not tool_use.tools:
        return written
    preamble = _preamble(tool_use)
    if written and written[0].role == "system":
        return [Message("system", join_texts([written[0].content, preamble])), *written[1:]]
    return [Message("system", preamble), *written]


def answer_beginning(choice: ToolChoice) -> str:
    """The beginning of an answer that must call a function, to be written at the end of the prompt.

    The model continues with the array of calls (`required`), or with the arguments of the function (`named`).
    """
    if choice.mode == "required":
        return TOOL_CALLS
    return f'{TOOL_CALLS} [{{"name": "{choice.name}", "arguments":' if choice.mode == "named" else ""


def calls_text(calls: Sequence[ToolCall]) -> str:
    """Calls as the model writes them."""
    listed = ", ".join(f'{{"name": "{call.name}", "arguments": {call.arguments}}}' for call in calls)
    return f"{TOOL_CALLS} [{listed}]"


def function_document(tool: Tool) -> dict[str, Any]:
    """A function as OpenAI writes it, without `description` if the client sent none."""
    document: dict[str, Any] = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {key: value for key, value in document.items() if value is not None}


def to_json(value: Any) -> str:
    """JSON as Mistral's own code writes it into prompts (mistral-common, instruct.py)."""
    return json.dumps(value, ensure_ascii=False)


def canonical_json(text: str) -> str | None:
    """JSON text rewritten without needless escapes; None if it is not JSON, or nested too deeply."""
    try:
        value = orjson.loads(text)
        orjson.dumps(value)  # raises if nested so deeply that a template would exceed Python's recursion limit
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    return to_json(value)


def as_json(content: str) -> str:
    """A result as JSON: JSON stays JSON, any other text becomes a string. As mistral-common does."""
    return canonical_json(content) or to_json(content)


def _preamble(tool_use: ToolUse) -> str:
    return _PREAMBLE.format(
        functions=to_json([{"type": "function", "function": function_document(tool)} for tool in tool_use.tools]),
        how_many="one or more of them" if tool_use.parallel else "one of them",
        more=", ..." if tool_use.parallel else "",
        marker=TOOL_CALLS,
        results=_TOOL_RESULTS,
    )


def _write_messages(messages: Sequence[Message]) -> Iterator[Message]:
    """Adjacent results become one user message, each with the name of the function that was called."""
    names: dict[str, str] = {}
    results: list[str] = []
    for message in messages:
        if message.role == "tool":
            results.append(_result_text(message, names))
            continue
        if results:
            yield Message("user", join_texts(results))
            results = []
        names.update((call.id, call.name) for call in message.tool_calls)
        text = calls_text(message.tool_calls) if message.tool_calls else ""
        yield Message(message.role, join_texts([message.content, text]))
    if results:
        yield Message("user", join_texts(results))


def _result_text(message: Message, names: Mapping[str, str]) -> str:
    name = names[message.tool_call_id or ""]
    return f'{_TOOL_RESULTS} {{"name": "{name}", "content": {as_json(message.content)}}}'
