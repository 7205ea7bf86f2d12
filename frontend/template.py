"""The checkpoint's chat template: a conversation to prompt text, in the sandbox that transformers renders it in.

Refuses tokens: it returns text. What the template cannot take is found out once, at start, and put right by Mistral's
rules; a conversation that it still refuses is the client's mistake.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from .errors import InvalidRequest, StartupError
from .messages import Message, normalise

_WITH_SYSTEM = (Message("system", "probe a"), Message("user", "probe b"))
_OUT_OF_TURN = (Message("user", "probe a"), Message("user", "probe b"))
_PLAIN = (Message("user", "probe a"), Message("assistant", "probe b"), Message("user", "probe c"))


class ChatTemplate:
    """Renders conversations. `special_tokens` are the names that templates use: bos_token, eos_token."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        self._source = source
        self._special_tokens: dict[str, Any] = dict(special_tokens)
        try:
            self._render(_PLAIN)
        except TemplateError as exc:
            raise StartupError(f"the chat template renders no plain conversation: {exc}") from exc
        self._fold_system = not self._takes(_WITH_SYSTEM)
        self._alternate = not self._takes(_OUT_OF_TURN)

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt, up to where the assistant speaks. Raises InvalidRequest with the template's own sentence."""
        try:
            return self._render(normalise(messages, fold_system=self._fold_system, alternate=self._alternate))
        except TemplateError as exc:
            raise InvalidRequest(f"The chat template refuses these messages: {exc}", param="messages") from exc

    def _takes(self, messages: Sequence[Message]) -> bool:
        """True if every message is in the prompt: some templates drop what they do not know."""
        try:
            prompt = self._render(messages)
        except TemplateError:
            return False
        return all(message.content in prompt for message in messages)

    def _render(self, messages: Sequence[Message]) -> str:
        # Annotated as a string upstream; it returns the prompts and, beside them, token spans that were not asked for.
        rendered: Any = render_jinja_template(
            conversations=[[asdict(message) for message in messages]],
            chat_template=self._source,
            add_generation_prompt=True,
            **self._special_tokens,
        )
        prompts, _ = rendered
        return str(prompts[0])
