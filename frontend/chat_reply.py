"""OpenAI's chat answers: one JSON body, or the chunks of a stream."""

from collections.abc import Sequence
from typing import Any

import orjson

from .errors import FrontendError
from .generation import Delta, Outcome, Token, Usage
from .protocol.chat import AssistantMessage, ChatChoice, ChatCompletion, ChatLogprobs
from .reply import DONE, Answer, Reply, error_event, sse, to_logprobs, to_usage_body, usage_body


class ChatFormat:
    """Whole answers have exactly vLLM 0.4's fields in its order, and further ones only where they were asked for.

    What all chunks share is rendered once: a chunk of plain text costs little more than the escaping of its text.
    `prompt_token_ids` are given where the request asked for token ids.
    """

    def __init__(
        self,
        reply: Reply,
        *,
        num_choices: int,
        num_prompt_tokens: int,
        logprobs: bool = False,
        include_usage: bool = False,
        continuous_usage_stats: bool = False,
        prompt_token_ids: Sequence[int] | None = None,
    ) -> None:
        self._reply = reply
        self._num_choices = num_choices
        self._num_prompt_tokens = num_prompt_tokens
        self._logprobs = logprobs
        self._include_usage = include_usage
        self._continuous_usage_stats = continuous_usage_stats
        self._prompt_token_ids = prompt_token_ids
        self._is_plain = not (logprobs or continuous_usage_stats or prompt_token_ids is not None)
        shared = {"id": reply.id, "object": "chat.completion.chunk", "created": reply.created, "model": reply.model}
        self._head = orjson.dumps(shared)[:-1] + b',"choices":['
        self._tail = b'],"usage":null}' if include_usage else b"]}"
        before = b"data: " + self._head + b'{"index":%d,"delta":{"content":'
        self._before_text = [before.replace(b"%d", b"%d" % index) for index in range(num_choices)]
        self._after_text = b'},"logprobs":null,"finish_reason":null}' + self._tail + b"\n\n"

    # ---- whole -----------------------------------------------------------------------------------------------------

    def whole(self, answers: Sequence[Answer]) -> bytes:
        """The whole answer as JSON."""
        completion = ChatCompletion(
            id=self._reply.id,
            created=self._reply.created,
            model=self._reply.model,
            choices=[self._choice(index, answer) for index, answer in enumerate(answers)],
            usage=usage_body([answer.outcome for answer in answers]),
        ).model_dump(mode="json")
        if self._prompt_token_ids is not None:
            completion["prompt_token_ids"] = self._prompt_token_ids
            for choice, answer in zip(completion["choices"], answers, strict=True):
                choice["token_ids"] = [token.token_id for token in answer.tokens]
        return orjson.dumps(completion)

    def _choice(self, index: int, answer: Answer) -> ChatChoice:
        return ChatChoice(
            index=index,
            message=AssistantMessage(content=answer.text),
            logprobs=ChatLogprobs(content=to_logprobs(answer.tokens)) if self._logprobs else None,
            finish_reason=answer.outcome.ending.finish_reason,
            stop_reason=answer.outcome.ending.stop_reason,
        )

    # ---- stream ----------------------------------------------------------------------------------------------------

    def opening(self) -> bytes:
        """Who speaks, for each choice."""
        more = {} if self._prompt_token_ids is None else {"prompt_token_ids": self._prompt_token_ids}
        events = [
            self._chunk(index, {"role": "assistant", "content": ""}, more=more, num_completion_tokens=0)
            for index in range(self._num_choices)
        ]
        return b"".join(events)

    def delta(self, index: int, delta: Delta) -> bytes:
        """More text."""
        if self._is_plain:
            return self._before_text[index] + orjson.dumps(delta.text) + self._after_text if delta.text else b""
        if not (delta.text or delta.tokens):
            return b""
        return self._chunk(
            index,
            {"content": delta.text},
            tokens=delta.tokens,
            num_completion_tokens=delta.num_completion_tokens,
        )

    def closing(self, index: int, outcome: Outcome) -> bytes:
        """Why it is over; `stop_reason` only where there is one, as vLLM does."""
        return self._chunk(
            index,
            {},
            ending={"finish_reason": outcome.ending.finish_reason, "stop_reason": outcome.ending.stop_reason},
            num_completion_tokens=outcome.usage.num_completion_tokens,
        )

    def end(self, outcomes: Sequence[Outcome]) -> bytes:
        """The chunk without choices that `include_usage` asks for, and the end mark."""
        if not self._include_usage:
            return DONE
        usage = usage_body(outcomes).model_dump_json().encode()
        return sse(self._head + b'],"usage":' + usage + b"}") + DONE

    def error(self, error: FrontendError) -> bytes:
        """OpenAI's error object; nothing follows."""
        return error_event(error)

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        *,
        num_completion_tokens: int,
        tokens: Sequence[Token] = (),
        ending: dict[str, Any] | None = None,
        more: dict[str, Any] | None = None,
    ) -> bytes:
        choice: dict[str, Any] = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        if self._logprobs and tokens:
            choice["logprobs"] = ChatLogprobs(content=to_logprobs(tokens)).model_dump(mode="json")
        if self._prompt_token_ids is not None and tokens:
            choice["token_ids"] = [token.token_id for token in tokens]
        choice |= {name: value for name, value in (ending or {}).items() if value is not None}
        head = (
            self._head
            if not more
            else self._head.replace(b',"choices":[', b"," + orjson.dumps(more)[1:-1] + b',"choices":[')
        )
        return sse(head + orjson.dumps(choice) + self._tail_with(num_completion_tokens))

    def _tail_with(self, num_completion_tokens: int) -> bytes:
        if not self._continuous_usage_stats:
            return self._tail
        usage = Usage(num_prompt_tokens=self._num_prompt_tokens, num_completion_tokens=num_completion_tokens)
        return b'],"usage":' + to_usage_body(usage).model_dump_json().encode() + b"}"
