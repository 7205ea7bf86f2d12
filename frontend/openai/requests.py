"""Steps from a body to a job that the endpoints share: checks, generation requests, parsers of tool calls."""

from collections.abc import Sequence
from dataclasses import replace

from frontend.errors import InvalidRequest, UnsupportedParameter
from frontend.generation import GenerationRequest
from frontend.text.served_model import ServedModel
from frontend.text.tool_parser import ToolCallParser
from frontend.text.tools import NO_TOOLS, TOOL_CALLS, ToolUse, new_mistral_id, new_openai_id

from .fields import MAX_CHOICES, CompletionFields, SamplingFields
from .sampling import (
    NO_LOGPROBS,
    WantedLogprobs,
    check_token_ids,
    to_sampling_params,
    truncate_prompt,
    with_defaults,
)


def to_requests(
    body: SamplingFields,
    prompts: Sequence[Sequence[int]],
    model: ServedModel,
    *,
    max_tokens: int | None,
    default_temperature: float,
    seed: int,
    wanted: WantedLogprobs = NO_LOGPROBS,
    num_choices: int = 1,
    tool_use: ToolUse = NO_TOOLS,
) -> list[GenerationRequest]:
    """`num_choices` generation requests for each prompt (token ids), prompt by prompt.

    Those of one prompt have the seeds seed, seed + 1, ...; `seed` is for a body without one. The first of them has the
    log probabilities of the prompt, if they are wanted. Raises InvalidRequest naming the field.
    """
    if num_choices * len(prompts) > MAX_CHOICES:
        raise InvalidRequest(f"`n` answers to each prompt are more than {MAX_CHOICES} in all.", param="n")
    marker = model.tokenizer.special_token_id(TOOL_CALLS) if tool_use.tools else None
    shown_token_ids = frozenset[int]() if marker is None else frozenset([marker])
    body = with_defaults(body, model.sampling_defaults)
    requests = []
    for given in prompts:
        prompt = truncate_prompt(given, body.truncate_prompt_tokens, max_tokens, model.engine.max_seq_len)
        if not prompt:
            raise InvalidRequest("The prompt has no tokens.", param="prompt")
        check_token_ids("prompt", prompt, model.vocab_size)
        params = to_sampling_params(
            body,
            max_tokens=max_tokens,
            num_prompt_tokens=len(prompt),
            engine=model.engine,
            vocab_size=model.vocab_size,
            default_temperature=default_temperature,
            wanted=wanted,
            seed=seed,
        )
        seeds = [(params.seed + choice) % 2**64 for choice in range(num_choices)]
        requests += [
            GenerationRequest(
                prompt_token_ids=prompt,
                sampling_params=replace(
                    params,
                    seed=own_seed,
                    shown_token_ids=shown_token_ids,
                    prompt_logprobs=None if choice else params.prompt_logprobs,
                ),
                end_tokens=model.end_tokens,
            )
            for choice, own_seed in enumerate(seeds)
        ]
    return requests


def to_parsers(tool_use: ToolUse, model: ServedModel, count: int) -> list[ToolCallParser]:
    """A parser for each of `count` answers; none where the answer cannot call functions."""
    new_id = new_mistral_id if model.template.knows_tools else new_openai_id
    return [ToolCallParser(tool_use.choice, new_id) for _ in range(count)] if tool_use.tools else []


def check_stream_options(body: CompletionFields) -> None:
    """Raises InvalidRequest if there are options and no stream."""
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest("`stream_options` needs `stream` to be true.", param="stream_options")


_NEEDED = {"logprobs": "top_logprobs", "echo": "prompt_logprobs"}
"""Parameters that ask for alternatives or for the prompt, to the field of SamplingParams that they need."""


def check_alternatives(model: ServedModel, **asked: bool) -> None:
    """Raises UnsupportedParameter for the first parameter that asks for more than the log probabilities of the chosen
    tokens, if the loaded engine does not report that.
    """
    for param in [param for param, wanted in asked.items() if wanted]:
        needed = _NEEDED.get(param, param)
        if needed not in model.engine.honours:
            reported = "of the answer's tokens" if "top_logprobs" in model.engine.honours else "of chosen tokens"
            raise UnsupportedParameter(
                f"The loaded engine cannot honour `{param}`: it reports log probabilities {reported} only.", param=param
            )


def check_prompt_logprobs(body: CompletionFields) -> None:
    """Raises InvalidRequest for `prompt_logprobs` of a stream, in which vLLM has no place for them either."""
    if body.prompt_logprobs is not None and body.stream:
        raise InvalidRequest("`prompt_logprobs` needs `stream` to be false.", param="prompt_logprobs")
