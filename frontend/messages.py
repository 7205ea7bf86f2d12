"""Conversations by Mistral's rules: one system prompt in front, then user and assistant in turn.

Pure, over (role, text) pairs, after mistral-common's v1 tokenizer. Refuses to know templates: which of the rules a
conversation needs is the template's matter.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

Role = Literal["system", "user", "assistant"]

SEPARATOR = "\n\n"
"""What mistral-common puts between texts that it joins (`_DEFAULT_JOIN_STR` of its normalize.py, 1.13)."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation, text only."""

    role: Role
    content: str


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
    """Join neighbours of one role; the user begins, with an empty message if need be."""
    runs = groupby(messages, key=lambda message: message.role)
    turns = [Message(role, join_texts(message.content for message in run)) for role, run in runs]
    return turns if turns and turns[0].role == "user" else [Message("user", ""), *turns]


def _fold(system_prompt: str, turns: list[Message]) -> list[Message]:
    """Put the system prompt in front of the first user message."""
    first = next((index for index, message in enumerate(turns) if message.role == "user"), None)
    if first is None:
        return [Message("user", system_prompt + SEPARATOR), *turns]
    folded = Message("user", system_prompt + SEPARATOR + turns[first].content)
    return [*turns[:first], folded, *turns[first + 1 :]]
