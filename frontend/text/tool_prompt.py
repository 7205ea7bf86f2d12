"""Tools in plain words, for templates that know none: a preamble where a system prompt goes, calls and results as text.

The words around the JSON are Mistral's own markers. Refuses tokens: in a vocabulary that has the markers as control
tokens they become those, in any other they are text; what a client wrote comes in shielded.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from .messages import Message, join_texts
from .tools import TOOL_CALLS, Tool, ToolCall, ToolChoice, ToolUse

_TOOL_RESULTS = "[TOOL_RESULTS]"

_PREAMBLE = """\
You can call these functions:
{functions}
To call {how_many}, answer with exactly this and nothing else, the arguments as the function's parameters demand:
{marker} [{{"name": ..., "arguments": {{...}}}}{more}]
What a function returns is then told to you after {results}. If no function is needed, answer in words."""


def write_out(messages: Sequence[Message], tool_use: ToolUse) -> list[Message]:
    """The same conversation in texts alone: neither calls nor the role `tool` are left."""
    written = [*_write_messages(messages)]
    if not tool_use.tools:
        return written
    preamble = _preamble(tool_use)
    if written and written[0].role == "system":
        return [Message("system", join_texts([written[0].content, preamble])), *written[1:]]
    return [Message("system", preamble), *written]


def answer_beginning(choice: ToolChoice) -> str:
    """What the prompt says in the assistant's name, so that an answer that must call is already doing it.

    The model goes on with the array of calls (`required`), or with the arguments of the function (`named`).
    """
    if choice.mode == "required":
        return TOOL_CALLS
    return f'{TOOL_CALLS} [{{"name": "{choice.name}", "arguments":' if choice.mode == "named" else ""


def calls_text(calls: Sequence[ToolCall]) -> str:
    """What the model writes to make these calls."""
    listed = ", ".join(f'{{"name": "{call.name}", "arguments": {call.arguments}}}' for call in calls)
    return f"{TOOL_CALLS} [{listed}]"


def function_document(tool: Tool) -> dict[str, Any]:
    """A function as OpenAI writes it; a description that the client left out is left out."""
    document: dict[str, Any] = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {key: value for key, value in document.items() if value is not None}


def to_json(value: Any) -> str:
    """JSON as Mistral's own code writes it into prompts (mistral-common, instruct.py)."""
    return json.dumps(value, ensure_ascii=False)


def canonical_json(text: str) -> str | None:
    """JSON text written anew, without escapes where none are needed; None if it is no JSON, or nested too deep."""
    try:
        value = orjson.loads(text)
        orjson.dumps(value)  # refuses a depth that would exhaust a template's recursion
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    return to_json(value)


def as_json(content: str) -> str:
    """A result as JSON: what is JSON stays it, anything else becomes a string. As mistral-common does."""
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
    """Results in a row become one message of the user, each under the name of the function that was called."""
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
