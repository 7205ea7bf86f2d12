"""A chat body to the generations it asks for. Pure.

Refuses to know Triton and HTTP: what comes out is ours. How the answers are written is chat_reply.py's matter.
"""

from collections.abc import Sequence

from .chat_reply import ChatFormat
from .errors import UnsupportedParameter
from .messages import Message, join_texts
from .parameters import DEFAULT_TEMPERATURE, check_supported
from .protocol.chat import ChatCompletionRequest, ChatMessage, Rendering
from .protocol.fields import StreamOptions
from .reply import Job, Reply
from .requests import check_alternatives, check_stream_options, to_requests
from .served_model import ServedModel
from .tokenizer import Tokenizer


def render_prompt(messages: Sequence[ChatMessage], rendering: Rendering, model: ServedModel) -> str:
    """The prompt text of a conversation. Raises InvalidRequest with the field that is to blame."""
    return model.template.render([_to_message(message, model.tokenizer) for message in messages])


def to_chat_job(body: ChatCompletionRequest, model: ServedModel, reply: Reply, *, seed: int, guide: str | None) -> Job:
    """Check a body and put it in our words. `seed` is for a body without one, `guide` what the answers must follow."""
    check_supported(body)
    check_stream_options(body)
    check_alternatives("top_logprobs", body.top_logprobs)
    requests = to_requests(
        body,
        [model.tokenizer.encode(render_prompt(body.messages, body, model))],
        model,
        max_tokens=_max_tokens(body),
        default_temperature=DEFAULT_TEMPERATURE,
        logprobs=bool(body.logprobs),
        seed=seed,
        guide=guide,
        num_choices=body.n or 1,
    )
    return Job(
        id=reply.id,
        requests=requests,
        format=_to_format(body, reply, requests[0].prompt_token_ids),
        stream=bool(body.stream),
        with_tokens=bool(body.logprobs or body.return_token_ids),
    )


def _to_format(body: ChatCompletionRequest, reply: Reply, prompt_token_ids: Sequence[int]) -> ChatFormat:
    options = body.stream_options or StreamOptions()
    return ChatFormat(
        reply,
        num_choices=body.n or 1,
        num_prompt_tokens=len(prompt_token_ids),
        logprobs=bool(body.logprobs),
        include_usage=options.include_usage,
        continuous_usage_stats=options.continuous_usage_stats,
        prompt_token_ids=prompt_token_ids if body.return_token_ids else None,
    )


def _to_message(message: ChatMessage, tokenizer: Tokenizer) -> Message:
    text = join_texts(part.text for part in message.content)
    return Message("system" if message.role == "developer" else message.role, tokenizer.shield(text))


def _max_tokens(body: ChatCompletionRequest) -> int | None:
    """`max_completion_tokens` is OpenAI's newer name for `max_tokens`."""
    old, new = body.max_tokens, body.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise UnsupportedParameter(
            "`max_tokens` and `max_completion_tokens` are two names for one thing; send one.", param="max_tokens"
        )
    return old if new is None else new
