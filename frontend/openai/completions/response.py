"""OpenAI's completions: one JSON body, or the chunks of a stream."""

from collections.abc import Sequence
from typing import Any

import orjson

from frontend.errors import FrontendError
from frontend.generation import Delta, GenerationRequest, Outcome, Token, Usage
from frontend.openai.fields import StreamOptions
from frontend.openai.job import Answer
from frontend.openai.reply import Chunks, Reply, error_event, name_of, to_prompt_logprobs, usage_body

from .types import Completion, CompletionChoice, CompletionLogprobs, CompletionRequest


class CompletionWriter:
    """Writes `text_completion` objects. `echoes` is the prompt's text for each choice, if the request asks for it."""

    def __init__(
        self,
        body: CompletionRequest,
        reply: Reply,
        requests: Sequence[GenerationRequest],
        *,
        echoes: Sequence[str] | None,
    ) -> None:
        self._reply = reply
        self._requests = requests
        self._num_prompts = len(requests) // (body.n or 1)
        self._echoes = echoes
        self._num_choices = body.n or 1
        self._num_top = body.logprobs
        self._num_prompt_top = body.prompt_logprobs
        self._tokens_as_ids = bool(body.return_tokens_as_token_ids)
        self._token_ids = bool(body.return_token_ids)
        self._num_characters = [0] * len(requests)
        self._chunks = Chunks(reply, "text_completion", body.stream_options or StreamOptions())

    def complete(self, answers: Sequence[Answer]) -> bytes:
        """The reply as one JSON body."""
        prompts = [answers[index - index % self._num_choices].prompt for index in range(len(answers))]
        completion = (
            Completion(
                id=self._reply.id,
                created=self._reply.created,
                model=self._reply.model,
                choices=[self._choice(index, answer, prompts[index]) for index, answer in enumerate(answers)],
                usage=usage_body([answer.outcome for answer in answers], self._num_prompts),
            ).model_dump(mode="json")
            | self._reply.extras
        )
        if self._token_ids:
            for choice, request, answer in zip(completion["choices"], self._requests, answers, strict=True):
                choice["prompt_token_ids"] = request.prompt_token_ids
                choice["token_ids"] = [token.token_id for token in answer.tokens]
        if self._num_prompt_top is not None:
            for choice, prompt in zip(completion["choices"], prompts, strict=True):
                choice["prompt_logprobs"] = to_prompt_logprobs(prompt, self._num_prompt_top)
        return orjson.dumps(completion)

    def _choice(self, index: int, answer: Answer, prompt: Sequence[Token]) -> CompletionChoice:
        echoed = prompt if self._echoes else ()
        return CompletionChoice(
            index=index,
            text=(self._echoes[index] if self._echoes else "") + answer.text,
            logprobs=None if self._num_top is None else self._to_logprobs(index, [*echoed, *answer.tokens]),
            finish_reason=answer.outcome.ending.finish_reason,
            stop_reason=answer.outcome.ending.stop_reason,
        )

    def start(self) -> bytes:
        """The prompts, if the request has `echo`. With their log probabilities they come with the first text."""
        if self._num_top is not None:
            return b""
        return b"".join([self._chunk(index, text, 0) for index, text in enumerate(self._echoes or ())])

    def delta(self, index: int, delta: Delta) -> bytes:
        """More text."""
        echo = self._chunk(index, self._echoes[index], 0, delta.prompt) if self._echoes and delta.prompt else b""
        if not (delta.text or delta.tokens):
            return echo
        return echo + self._chunk(index, delta.text, delta.num_completion_tokens, delta.tokens)

    def finish(self, index: int, outcome: Outcome) -> bytes:
        """The finish reason."""
        ending = outcome.ending
        return self._chunk(
            index,
            "",
            outcome.usage.num_completion_tokens,
            finish_reason=ending.finish_reason,
            stop_reason=ending.stop_reason,
        )

    def end(self, outcomes: Sequence[Outcome]) -> bytes:
        """The chunk without choices that `include_usage` asks for, and `[DONE]`."""
        return self._chunks.end(outcomes, self._num_prompts)

    def error(self, error: FrontendError) -> bytes:
        """OpenAI's error object; nothing follows."""
        return error_event(error)

    def _chunk(
        self,
        index: int,
        text: str,
        num_completion_tokens: int,
        tokens: Sequence[Token] = (),
        **ending: str | int | None,
    ) -> bytes:
        choice: dict[str, Any] = {
            "index": index,
            "text": text,
            "logprobs": None,
            "finish_reason": None,
            "stop_reason": None,
        }
        if self._num_top is not None and tokens:
            choice["logprobs"] = self._to_logprobs(index, tokens).model_dump(mode="json")
        if self._token_ids and num_completion_tokens and tokens:  # 0: those of the prompt, in an echo
            choice["token_ids"] = [token.token_id for token in tokens]
        num_prompt_tokens = len(self._requests[index].prompt_token_ids)
        usage = Usage(num_prompt_tokens=num_prompt_tokens, num_completion_tokens=num_completion_tokens)
        return self._chunks.chunk(choice | ending, usage)

    def _to_logprobs(self, index: int, tokens: Sequence[Token]) -> CompletionLogprobs:
        """OpenAI's older shape; text offsets continue from chunk to chunk."""
        texts = [name_of(token, as_id=False) for token in tokens]
        offsets = []
        for text in texts:
            offsets.append(self._num_characters[index])
            self._num_characters[index] += len(text)
        return CompletionLogprobs(
            text_offset=offsets,
            token_logprobs=[token.log_prob for token in tokens],
            tokens=[name_of(token, as_id=self._tokens_as_ids) for token in tokens],
            top_logprobs=[self._to_top(token) for token in tokens] if self._num_top else None,
        )

    def _to_top(self, token: Token) -> dict[str, float] | None:
        """The most likely tokens, and the token itself if it is none of them. Of equal names the likeliest stays."""
        if token.log_prob is None:
            return None
        listed = [*token.top[: self._num_top], token]
        return {name_of(each, as_id=self._tokens_as_ids): each.log_prob or 0.0 for each in reversed(listed)}
