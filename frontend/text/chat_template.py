"""The checkpoint's chat template: a conversation to prompt text, rendered in transformers' sandbox.

At start, probes are rendered to find out which conversations the template does not support. Those are then adapted by
Mistral's rules (messages.py); what the template still refuses is the client's mistake. For a template that does not
write tools in Mistral's format, they are written out as text (tool_prompt.py).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from frontend.errors import InvalidRequest, StartupError

from .messages import Message, fold_into_last, normalise
from .tool_documents import Unquoted, message_document, tool_document
from .tool_prompt import answer_beginning, write_out
from .tools import NO_TOOLS, TOOL_CALLS, Tool, ToolCall, ToolUse

_WITH_SYSTEM = (Message("system", "probe a"), Message("user", "probe b"))
_OUT_OF_TURN = (Message("user", "probe a"), Message("user", "probe b"))
_PLAIN = (Message("user", "probe a"), Message("assistant", "probe b"), Message("user", "probe c"))
_CALLING = (
    Message("user", "probe d"),
    Message("assistant", "", (ToolCall(id="probe0001", name="probe_call", arguments="{}"),)),
    Message("tool", 'probe "b"', tool_call_id="probe0001"),
)
_TOOL = Tool(name="probe_tool", description='probe "c"', parameters={})
"""These five are the probes: conversations and a tool that are rendered at start."""

_MISTRALS_CALL = re.compile(re.escape(TOOL_CALLS) + r' ?\[\{"name": "probe_call", "arguments": \{\}')
"""How the call of `_CALLING` looks in a prompt in Mistral's format."""

_OURS = frozenset({"messages", "tools", "documents", "add_generation_prompt", "continue_final_message"})
"""Variables of the template that a client cannot set by `chat_template_kwargs`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """How a conversation is rendered. `variables` are further variables of the template, by name."""

    add_generation_prompt: bool = True
    continue_final_message: bool = False
    variables: Mapping[str, Any] = field(default_factory=dict)


PLAIN_RENDERING = Rendering()


class ChatTemplate:
    """Renders conversations. `special_tokens` are by the names that templates use: bos_token, eos_token.

    `knows_tools` is true if the template writes tools and calls in Mistral's format. Its calls then need ids of nine
    letters and digits (`tools.new_mistral_id`).
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        self._source = source
        self._special_tokens: dict[str, Any] = dict(special_tokens)
        self._unquoted = Unquoted()
        try:
            self._render(_PLAIN)
        except Exception as exc:  # a template may raise any exception
            raise StartupError(f"the chat template renders no plain conversation: {exc}") from exc
        self._fold_system = not self._shows(_WITH_SYSTEM)
        self._alternate = not self._shows(_OUT_OF_TURN)
        calling = self._try(_CALLING, [_TOOL])
        self.knows_tools = _TOOL.name in calling and _MISTRALS_CALL.search(calling) is not None
        self._unquoted = Unquoted(results='probe "b"' in calling, descriptions='probe "c"' in calling)
        system = _WITH_SYSTEM[0]
        self._drops_system = self.knows_tools and system.content not in self._try([system, *_CALLING])

    def with_source(self, source: str) -> "ChatTemplate":
        """Another template for the same vocabulary. Raises InvalidRequest if it renders no plain conversation."""
        try:
            return ChatTemplate(source, self._special_tokens)
        except StartupError as exc:
            raise InvalidRequest(
                f"`chat_template`: {exc}.", param="chat_template", log_message="`chat_template` cannot be used."
            ) from exc

    def render(
        self, messages: Sequence[Message], tool_use: ToolUse = NO_TOOLS, rendering: Rendering = PLAIN_RENDERING
    ) -> str:
        """The prompt, up to where the answer begins; with the beginning of the answer if that must call a function.

        In all text of the client, special tokens must be escaped. Raises InvalidRequest with the template's message.
        """
        self._check(messages, rendering)
        adapted = messages if self.knows_tools else write_out(messages, tool_use)
        adapted = normalise(adapted, fold_system=self._fold_system, alternate=self._alternate)
        if self._drops_system and adapted[-1].role != "user":
            adapted = fold_into_last(adapted)
        try:
            prompt = self._render(adapted, tool_use.tools if self.knows_tools else (), rendering)
        except Exception as exc:  # of any kind, as above
            raise InvalidRequest(
                f"The chat template refuses these messages: {exc}",
                param="messages",
                log_message="The chat template refuses these messages.",
            ) from exc
        return prompt + answer_beginning(tool_use.choice)

    def _check(self, messages: Sequence[Message], rendering: Rendering) -> None:
        if rendering.continue_final_message and rendering.add_generation_prompt:
            raise InvalidRequest(
                "`continue_final_message` needs `add_generation_prompt` to be false.", param="continue_final_message"
            )
        if rendering.continue_final_message and (messages[-1].role != "assistant" or messages[-1].tool_calls):
            raise InvalidRequest(
                "`continue_final_message` needs the last message to be the assistant's words.",
                param="continue_final_message",
            )
        if taken := sorted(rendering.variables.keys() & (_OURS | self._special_tokens.keys())):
            raise InvalidRequest(f"`chat_template_kwargs` must not set `{taken[0]}`.", param="chat_template_kwargs")

    def _shows(self, messages: Sequence[Message]) -> bool:
        """True if every message is in the prompt: some templates drop messages of roles that they do not know."""
        prompt = self._try(messages)
        return all(message.content in prompt for message in messages)

    def _try(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> str:
        """The prompt, or "" if the template fails, which it may do with any exception."""
        try:
            return self._render(messages, tools)
        except Exception:
            return ""

    def _render(
        self, messages: Sequence[Message], tools: Sequence[Tool] = (), rendering: Rendering = PLAIN_RENDERING
    ) -> str:
        documents = [message_document(message, self._unquoted) for message in messages]
        rendered: Any = render_jinja_template(
            conversations=[documents],
            tools=[tool_document(tool, self._unquoted) for tool in tools] or None,
            chat_template=self._source,
            add_generation_prompt=rendering.add_generation_prompt,
            continue_final_message=rendering.continue_final_message,
            **rendering.variables,
            **self._special_tokens,
        )
        prompts, _ = rendered  # a tuple, though annotated as str; the second part is token spans
        return str(prompts[0])
