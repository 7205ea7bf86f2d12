"""Conversations by Mistral's rules: one system prompt in front, then user and assistant in turn.

Pure, over messages of text and calls, after mistral-common's v1 and v3 tokenizers. Refuses to know templates: which of
the rules a conversation needs is the template's matter.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from .tools import ToolCall

Role = Literal["system", "user", "assistant", "tool"]

SEPARATOR = "\n\n"
"""What mistral-common puts between texts that it joins (`_DEFAULT_JOIN_STR` of its normalize.py, 1.13)."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation: text, calls of the assistant, or with `tool_call_id` what one of them returned."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


def join_texts(texts: Iterable[str]) -> str:
    """Join the parts of a message, or several messages; empty ones leave no trace."""
    return SEPARATOR.join(text for text in texts if text)


def normalise(messages: Sequence[Message], *, fold_system: bool, alternate: bool) -> Sequence[Message]:
    """Apply the rules asked for: `fold_system` where no system role exists, `alternate` where roles must take turns.

    One difference to mistral-common, on purpose: a system message between two user messages does not keep them apart.
    """
    if not fold_system and not alternate:
        return messages
    system_prompt = join_texts(message.content for message in messages if message.role == "system")
    turns = [message for message in messages if message.role != "system"]
    if alternate:
        turns = _take_turns(turns)
    if not system_prompt:
        return turns
    return _fold(system_prompt, turns) if fold_system else [Message("system", system_prompt), *turns]


def _take_turns(messages: Sequence[Message]) -> list[Message]:
    """Join neighbours of one role; the user begins, with an empty message if need be.

    Calls and their results count as no turn, by Mistral's v3 templates: each result stays a message of its own, and a
    user who speaks right after them has been answered with nothing.
    """
    turns: list[Message] = []
    for message in messages:
        last = turns[-1] if turns else Message("assistant", "")
        if turns and last.role == message.role != "tool" and not last.tool_calls:
            turns[-1] = Message(message.role, join_texts([last.content, message.content]), message.tool_calls)
            continue
        if message.role == "user" and (last.role == "tool" or last.tool_calls):
            turns.append(Message("assistant", ""))
        turns.append(message)
    return turns if turns and turns[0].role == "user" else [Message("user", ""), *turns]


def _fold(system_prompt: str, turns: list[Message]) -> list[Message]:
    """Put the system prompt in front of the first user message."""
    first = next((index for index, message in enumerate(turns) if message.role == "user"), None)
    if first is None:
        return [Message("user", system_prompt + SEPARATOR), *turns]
    folded = Message("user", system_prompt + SEPARATOR + turns[first].content)
    return [*turns[:first], folded, *turns[first + 1 :]]


def fold_into_last(messages: Sequence[Message]) -> Sequence[Message]:
    """Put a leading system prompt in front of the last user message, where mistral-common's v3 has it."""
    last = next((index for index in reversed(range(len(messages))) if messages[index].role == "user"), None)
    if last is None or messages[0].role != "system":
        return messages
    folded = Message("user", messages[0].content + SEPARATOR + messages[last].content)
    return [*messages[1:last], folded, *messages[last + 1 :]]
