"""OpenAI's chat replies: one JSON body, or the chunks of a stream."""

from collections.abc import Sequence
from typing import Any, Literal

import orjson

from frontend.errors import FrontendError
from frontend.generation import Delta, Ending, Outcome, Token, Usage
from frontend.openai.fields import StreamOptions
from frontend.openai.job import Answer
from frontend.openai.reply import Chunks, Reply, error_event, to_logprobs, to_prompt_logprobs, usage_body
from frontend.openai.tools.convert import to_delta, to_wire
from frontend.text.tool_parser import ToolCallParser
from frontend.text.tools import NO_TOOLS, ToolChoice, chat_finish_reason, collect

from .types import AssistantMessage, ChatChoice, ChatCompletion, ChatLogprobs


class ChatWriter:
    """Writes `chat.completion` objects: vLLM 0.4's fields in its order, and more only if the request asks for them.

    The bytes that all chunks share are rendered once: a chunk of plain text costs little more than escaping its text.
    `num_prompt_top` is vLLM's `prompt_logprobs`. `prompt_token_ids` is None unless the request asks for token ids.
    `parsers` has one for each choice, or none if the answers cannot call functions.
    """

    def __init__(
        self,
        reply: Reply,
        *,
        num_choices: int,
        num_prompt_tokens: int,
        logprobs: bool = False,
        tokens_as_ids: bool = False,
        num_prompt_top: int | None = None,
        options: StreamOptions | None = None,
        prompt_token_ids: Sequence[int] | None = None,
        tool_choice: ToolChoice = NO_TOOLS.choice,
        parsers: Sequence[ToolCallParser] = (),
    ) -> None:
        options = options or StreamOptions()
        self._reply = reply
        self._chunks = Chunks(reply, "chat.completion.chunk", options)
        self._num_choices = num_choices
        self._num_prompt_tokens = num_prompt_tokens
        self._logprobs = logprobs
        self._tokens_as_ids = tokens_as_ids
        self._num_prompt_top = num_prompt_top
        self._prompt_token_ids = prompt_token_ids
        self._tool_choice = tool_choice
        self._parsers = parsers
        with_more = logprobs or options.usage_in_chunks or prompt_token_ids is not None
        self._is_plain = not (with_more or parsers)
        before = b"data: " + self._chunks.head
        self._before_text = [before + b'{"index":%d,"delta":{"content":' % index for index in range(num_choices)]
        self._after_text = b'},"logprobs":null,"finish_reason":null}' + self._chunks.tail + b"\n\n"

    # ---- one JSON body -----------------------------------------------------------------------------------------------

    def complete(self, answers: Sequence[Answer]) -> bytes:
        """The reply as one JSON body."""
        completion = (
            ChatCompletion(
                id=self._reply.id,
                created=self._reply.created,
                model=self._reply.model,
                choices=[self._choice(index, answer) for index, answer in enumerate(answers)],
                usage=usage_body([answer.outcome for answer in answers]),
            ).model_dump(mode="json")
            | self._reply.extras
        )
        if self._prompt_token_ids is not None:
            completion["prompt_token_ids"] = self._prompt_token_ids
            for choice, answer in zip(completion["choices"], answers, strict=True):
                choice["token_ids"] = [token.token_id for token in answer.tokens]
        if self._num_prompt_top is not None:
            completion["prompt_logprobs"] = to_prompt_logprobs(answers[0].prompt, self._num_prompt_top)
        for choice in completion["choices"]:
            if choice["message"]["tool_calls"] is None:
                del choice["message"]["tool_calls"]
        return orjson.dumps(completion)

    def _choice(self, index: int, answer: Answer) -> ChatChoice:
        message = AssistantMessage(content=answer.text)
        if self._parsers:
            parser = self._parsers[index]
            text, calls = collect([*parser.feed(answer.text), *parser.finish(cut=_is_cut(answer.outcome))])
            message = AssistantMessage(content=text)
            if calls:
                message = AssistantMessage(content=text or None, tool_calls=[to_wire(call) for call in calls])
        return ChatChoice(
            index=index,
            message=message,
            logprobs=self._to_logprobs(answer.tokens) if self._logprobs else None,
            finish_reason=self._finish_reason(index, answer.outcome.ending),
            stop_reason=answer.outcome.ending.stop_reason,
        )

    def _to_logprobs(self, tokens: Sequence[Token]) -> ChatLogprobs:
        return ChatLogprobs(content=to_logprobs(tokens, as_ids=self._tokens_as_ids))

    def _finish_reason(self, index: int, ending: Ending) -> Literal["stop", "length", "tool_calls"]:
        if not self._parsers:
            return ending.finish_reason
        complete = self._parsers[index].all_calls_complete
        return chat_finish_reason(self._tool_choice, ending.finish_reason, all_calls_complete=complete)

    # ---- stream ----------------------------------------------------------------------------------------------------

    def start(self) -> bytes:
        """The role, for each choice."""
        more = {} if self._prompt_token_ids is None else {"prompt_token_ids": self._prompt_token_ids}
        delta = {"role": "assistant", "content": ""}
        return b"".join([self._chunk(index, delta, 0, more=more) for index in range(self._num_choices)])

    def delta(self, index: int, delta: Delta) -> bytes:
        """More text."""
        if self._is_plain:
            return self._before_text[index] + orjson.dumps(delta.text) + self._after_text if delta.text else b""
        if not (delta.text or delta.tokens):
            return b""
        if not self._parsers:
            return self._chunk(index, {"content": delta.text}, delta.num_completion_tokens, delta.tokens)
        events = [to_delta(event) for event in self._parsers[index].feed(delta.text)]
        if not events and delta.tokens:
            events = [{}]
        return b"".join(
            [
                self._chunk(index, event, delta.num_completion_tokens, () if number else delta.tokens)
                for number, event in enumerate(events)
            ]
        )

    def finish(self, index: int, outcome: Outcome) -> bytes:
        """Text that was held back, and the finish reason; `stop_reason` only where there is one, as with vLLM."""
        held = self._parsers[index].finish(cut=_is_cut(outcome)) if self._parsers else []
        count, ending = outcome.usage.num_completion_tokens, outcome.ending
        reasons = {"finish_reason": self._finish_reason(index, ending), "stop_reason": ending.stop_reason}
        return b"".join(
            [
                *[self._chunk(index, to_delta(event), count) for event in held],
                self._chunk(index, {}, count, ending=reasons),
            ]
        )

    def end(self, outcomes: Sequence[Outcome]) -> bytes:
        """The chunk without choices that `include_usage` asks for, and `[DONE]`."""
        return self._chunks.end(outcomes)

    def error(self, error: FrontendError) -> bytes:
        """OpenAI's error object; nothing follows."""
        return error_event(error)

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        num_completion_tokens: int,
        tokens: Sequence[Token] = (),
        *,
        ending: dict[str, Any] | None = None,
        more: dict[str, Any] | None = None,
    ) -> bytes:
        choice: dict[str, Any] = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        if self._logprobs and tokens:
            choice["logprobs"] = self._to_logprobs(tokens).model_dump(mode="json")
        if self._prompt_token_ids is not None and tokens:
            choice["token_ids"] = [token.token_id for token in tokens]
        choice |= {name: value for name, value in (ending or {}).items() if value is not None}
        usage = Usage(num_prompt_tokens=self._num_prompt_tokens, num_completion_tokens=num_completion_tokens)
        return self._chunks.chunk(choice, usage, more)


def _is_cut(outcome: Outcome) -> bool:
    """Whether `max_tokens` ended the answer."""
    return outcome.ending.finish_reason == "length"
