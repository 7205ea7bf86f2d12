"""Escape special tokens in everything that a client wrote, so that it reaches the model as text.

The escape itself is `Tokenizer.escape_special_tokens`; these functions apply it to whole values.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .tools import ToolUse

EscapeSpecialTokens = Callable[[str], str]
"""Text to the same text with its special tokens marked as text: `Tokenizer.escape_special_tokens`."""


def escape_strings(value: Any, escape: EscapeSpecialTokens) -> Any:
    """Any JSON value with all its strings escaped, keys included."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, dict):
        return {escape(key): escape_strings(member, escape) for key, member in value.items()}
    return [escape_strings(element, escape) for element in value] if isinstance(value, list) else value


def escape_tool_use(tool_use: ToolUse, escape: EscapeSpecialTokens) -> ToolUse:
    """The same tools for a prompt: special tokens in descriptions and schemas are text."""
    tools = (
        replace(
            tool,
            description=None if tool.description is None else escape(tool.description),
            parameters=escape_strings(tool.parameters, escape),
        )
        for tool in tool_use.tools
    )
    return replace(tool_use, tools=tuple(tools))
