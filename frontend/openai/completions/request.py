"""OpenAI's older completions, both ways: text or token ids are continued as they are. Pure."""

from collections.abc import Sequence
from typing import Any

import orjson

from frontend.errors import FrontendError, UnsupportedParameter
from frontend.generation import Delta, GenerationRequest, Outcome, Token, Usage
from frontend.openai.fields import StreamOptions
from frontend.openai.reply import Answer, Chunks, Job, Reply, error_event, usage_body
from frontend.openai.requests import check_alternatives, check_stream_options, to_requests
from frontend.openai.sampling import check_supported
from frontend.text.served_model import ServedModel

from .types import Completion, CompletionChoice, CompletionLogprobs, CompletionRequest

_DEFAULT_MAX_TOKENS = 16
_DEFAULT_TEMPERATURE = 1.0


def to_completion_job(
    body: CompletionRequest, model: ServedModel, reply: Reply, *, seed: int, guide: str | None
) -> Job:
    """Check a body and put it in our words. `seed` is for a body without one, `guide` what the answers must follow."""
    check_supported(body)
    check_stream_options(body)
    check_alternatives("logprobs", body.logprobs)
    logprobs = body.logprobs is not None
    if body.echo and logprobs:
        raise UnsupportedParameter("`echo` does not go with `logprobs`: the prompt has none.", param="echo")
    prompts = _prompts(body)
    add_special_tokens = body.add_special_tokens is not False
    requests = to_requests(
        body,
        [
            model.tokenizer.encode_text(prompt, add_special_tokens=add_special_tokens)
            if isinstance(prompt, str)
            else prompt
            for prompt in prompts
        ],
        model,
        max_tokens=body.max_tokens or _DEFAULT_MAX_TOKENS,
        default_temperature=_DEFAULT_TEMPERATURE,
        logprobs=logprobs,
        seed=seed,
        guide=guide,
        num_choices=body.n or 1,
    )
    return Job(
        id=reply.id,
        requests=requests,
        format=CompletionFormat(body, reply, requests, echoes=_echoes(body, prompts, model)),
        stream=bool(body.stream),
        with_tokens=logprobs or bool(body.return_token_ids),
    )


def _prompts(body: CompletionRequest) -> list[str] | list[list[int]]:
    """One prompt is a list of one."""
    prompt = body.prompt
    if isinstance(prompt, str):
        return [prompt]
    return [prompt] if isinstance(prompt[0], int) else prompt


def _echoes(body: CompletionRequest, prompts: Sequence[str | list[int]], model: ServedModel) -> Sequence[str] | None:
    """The prompt's text for each choice, as it was sent where it was text."""
    if not body.echo:
        return None
    texts = [prompt if isinstance(prompt, str) else model.tokenizer.decode(prompt) for prompt in prompts]
    return [text for text in texts for _ in range(body.n or 1)]


class CompletionFormat:
    """`text_completion` objects, whole or in pieces. `echoes` has the prompt's text for each choice, if asked for."""

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
        self._logprobs = body.logprobs is not None
        self._token_ids = bool(body.return_token_ids)
        self._num_characters = [0] * len(requests)
        self._chunks = Chunks(reply, "text_completion", body.stream_options or StreamOptions())

    def whole(self, answers: Sequence[Answer]) -> bytes:
        """The whole answer as JSON."""
        completion = (
            Completion(
                id=self._reply.id,
                created=self._reply.created,
                model=self._reply.model,
                choices=[self._choice(index, answer) for index, answer in enumerate(answers)],
                usage=usage_body([answer.outcome for answer in answers], self._num_prompts),
            ).model_dump(mode="json")
            | self._reply.extras
        )
        if self._token_ids:
            for choice, request, answer in zip(completion["choices"], self._requests, answers, strict=True):
                choice["prompt_token_ids"] = request.prompt_token_ids
                choice["token_ids"] = [token.token_id for token in answer.tokens]
        return orjson.dumps(completion)

    def _choice(self, index: int, answer: Answer) -> CompletionChoice:
        return CompletionChoice(
            index=index,
            text=(self._echoes[index] if self._echoes else "") + answer.text,
            logprobs=self._to_logprobs(index, answer.tokens) if self._logprobs else None,
            finish_reason=answer.outcome.ending.finish_reason,
            stop_reason=answer.outcome.ending.stop_reason,
        )

    def opening(self) -> bytes:
        """The prompts, where they are to be echoed; else nothing comes before the text."""
        return b"".join([self._chunk(index, text, 0) for index, text in enumerate(self._echoes or ())])

    def delta(self, index: int, delta: Delta) -> bytes:
        """More text."""
        if not (delta.text or delta.tokens):
            return b""
        return self._chunk(index, delta.text, delta.num_completion_tokens, delta.tokens)

    def closing(self, index: int, outcome: Outcome) -> bytes:
        """Why it is over."""
        ending = outcome.ending
        return self._chunk(
            index,
            "",
            outcome.usage.num_completion_tokens,
            finish_reason=ending.finish_reason,
            stop_reason=ending.stop_reason,
        )

    def end(self, outcomes: Sequence[Outcome]) -> bytes:
        """The chunk without choices that `include_usage` asks for, and the end mark."""
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
        if self._logprobs and tokens:
            choice["logprobs"] = self._to_logprobs(index, tokens).model_dump(mode="json")
        if self._token_ids and tokens:
            choice["token_ids"] = [token.token_id for token in tokens]
        num_prompt_tokens = len(self._requests[index].prompt_token_ids)
        usage = Usage(num_prompt_tokens=num_prompt_tokens, num_completion_tokens=num_completion_tokens)
        return self._chunks.chunk(choice | ending, usage)

    def _to_logprobs(self, index: int, tokens: Sequence[Token]) -> CompletionLogprobs:
        """OpenAI's older shape; offsets go on from chunk to chunk."""
        texts = [token.text.decode(errors="replace") for token in tokens]
        offsets = []
        for text in texts:
            offsets.append(self._num_characters[index])
            self._num_characters[index] += len(text)
        log_probs = [token.log_prob or 0.0 for token in tokens]
        return CompletionLogprobs(text_offset=offsets, token_logprobs=log_probs, tokens=texts)
