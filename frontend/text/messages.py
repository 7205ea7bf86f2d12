"""Conversations by Mistral's rules: one system prompt in front, then user and assistant in turn.

The rules are those of mistral-common's v1 and v3 tokenizers. Not here: which of them a template needs, see
chat_template.py.
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
    """One message of a conversation: text, calls of the assistant, or the result of the call `tool_call_id`."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


def join_texts(texts: Iterable[str]) -> str:
    """Join the parts of a message, or several messages, without empty ones."""
    return SEPARATOR.join(text for text in texts if text)


def normalise(messages: Sequence[Message], *, fold_system: bool, alternate: bool) -> Sequence[Message]:
    """Apply the rules that the template needs.

    `fold_system`: it has no system role, so the system prompt goes into the first user message. `alternate`: user and
    assistant must take turns. One deliberate difference to mistral-common: two user messages are joined even if a
    system message stands between them.
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
    """Join adjacent messages of one role; the first turn is the user's, with an empty message if need be.

    In Mistral's v3 templates, calls and their results are not turns: each result stays a message of its own, and a
    user message directly after them gets an empty answer in front.
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
    """Put a leading system prompt in front of the last user message, as mistral-common's v3 does."""
    last = next((index for index in reversed(range(len(messages))) if messages[index].role == "user"), None)
    if last is None or messages[0].role != "system":
        return messages
    folded = Message("user", messages[0].content + SEPARATOR + messages[last].content)
    return [*messages[1:last], folded, *messages[last + 1 :]]
