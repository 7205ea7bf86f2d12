"""A completions body to a job: check, prompts, tokens, sampling parameters. Pure.

Prompts are continued as they are, text or token ids, without a chat template.
"""

from collections.abc import Sequence

from frontend.errors import InvalidRequest
from frontend.openai.job import Job
from frontend.openai.prompt_size import check_chars, check_num_tokens, max_prompt_tokens, to_token_ids
from frontend.openai.reply import Reply
from frontend.openai.requests import (
    check_alternatives,
    check_prompt_logprobs,
    check_stream_options,
    to_requests,
)
from frontend.openai.sampling import NO_LOGPROBS, WantedLogprobs
from frontend.openai.structured_output import response_format_constraint, to_constraint
from frontend.openai.unsupported import check_supported
from frontend.text.served_model import ServedModel

from .response import CompletionWriter
from .types import CompletionRequest

_DEFAULT_MAX_TOKENS = 16
"""OpenAI's and vLLM's default for completions."""

_DEFAULT_TEMPERATURE = 1.0
"""OpenAI's and vLLM's default for completions."""


def to_completion_job(body: CompletionRequest, model: ServedModel, reply: Reply, *, seed: int) -> Job:
    """The job of a checked body. `seed` is for a body without one. Raises InvalidRequest naming the field."""
    check_supported(body)
    check_stream_options(body)
    wanted = _wanted_logprobs(body, model)
    constraint = to_constraint(body, response_format_constraint(body), model)
    prompts = _prompts(body)
    requests = to_requests(
        body,
        _encode(prompts, body, model),
        model,
        max_tokens=body.max_tokens or _DEFAULT_MAX_TOKENS,
        default_temperature=_DEFAULT_TEMPERATURE,
        wanted=wanted,
        seed=seed,
        num_choices=body.n or 1,
    )
    return Job(
        id=reply.id,
        model=reply.model,
        requests=requests,
        writer=CompletionWriter(body, reply, requests, echoes=_echoes(body, prompts, model)),
        stream=bool(body.stream),
        num_choices=body.n or 1,
        with_tokens=wanted != NO_LOGPROBS or bool(body.return_token_ids),
        constraint=constraint,
        operation="text_completion",
    )


def _wanted_logprobs(body: CompletionRequest, model: ServedModel) -> WantedLogprobs:
    """With `echo`, `logprobs` are those of the prompt too. Raises InvalidRequest and UnsupportedParameter."""
    check_prompt_logprobs(body)
    echoed = body.logprobs if body.echo else None
    check_alternatives(
        model,
        logprobs=bool(body.logprobs),
        echo=echoed is not None,
        prompt_logprobs=body.prompt_logprobs is not None,
    )
    if echoed is not None and body.stream and (body.n or 1) > 1:
        raise InvalidRequest("`echo` with `logprobs` and `stream` needs `n` to be 1.", param="n")
    of_prompt = [count for count in (echoed, body.prompt_logprobs) if count is not None]
    return WantedLogprobs(
        logprobs=body.logprobs is not None,
        top_logprobs=body.logprobs or 0,
        prompt_logprobs=max(of_prompt, default=None),
    )


def _prompts(body: CompletionRequest) -> list[str] | list[list[int]]:
    """A single prompt as a list of one."""
    prompt = body.prompt
    if isinstance(prompt, str):
        return [prompt]
    return [prompt] if isinstance(prompt[0], int) else prompt


def _encode(prompts: Sequence[str | list[int]], body: CompletionRequest, model: ServedModel) -> list[list[int]]:
    """The token ids of the prompts, which are bounded in all too."""
    most_tokens = max_prompt_tokens(body, model)
    num_tokens, encoded = 0, []
    for prompt in prompts:
        token_ids = prompt if not isinstance(prompt, str) else _encode_text(prompt, body, model, most_tokens)
        num_tokens += len(token_ids)
        check_num_tokens(num_tokens, model, "prompt")
        encoded.append(token_ids)
    return encoded


def _encode_text(prompt: str, body: CompletionRequest, model: ServedModel, max_tokens: int | None) -> list[int]:
    check_chars([prompt], model, max_tokens, "prompt")
    pieces = model.tokenizer.encode_text_in_pieces(prompt, add_special_tokens=body.add_special_tokens is not False)
    return to_token_ids(pieces, model, "prompt")


def _echoes(body: CompletionRequest, prompts: Sequence[str | list[int]], model: ServedModel) -> Sequence[str] | None:
    """The prompt's text for each choice: as the client sent it, or decoded where it sent token ids."""
    if not body.echo:
        return None
    texts = [prompt if isinstance(prompt, str) else model.tokenizer.decode(prompt) for prompt in prompts]
    return [text for text in texts for _ in range(body.n or 1)]
