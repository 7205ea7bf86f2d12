"""A conversation as values, and the request that continues it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Conversation:
    """What was said so far. `turns` are messages of the user and the assistant in turn, the user's first."""

    system: str = ""
    turns: tuple[str, ...] = ()

    def messages(self) -> list[dict[str, str]]:
        """As the API takes them."""
        roles = ("user", "assistant")
        said = [{"role": roles[index % 2], "content": text} for index, text in enumerate(self.turns)]
        return [{"role": "system", "content": self.system}, *said] if self.system else said

    def with_turn(self, text: str) -> "Conversation":
        """With one more message, of whose turn it is."""
        return replace(self, turns=(*self.turns, text))


def request(model: str, conversation: Conversation, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a request for the next answer; `parameters` are any others of the API."""
    return {"model": model, "messages": conversation.messages(), **parameters}
