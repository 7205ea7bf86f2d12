"""A chat body to the generations it asks for. Pure.

Refuses to know Triton and HTTP: what comes out is ours. How the answers are written is chat_reply.py's matter.
"""

from collections.abc import Sequence
from functools import lru_cache

from frontend.errors import UnsupportedParameter
from frontend.generation import GenerationRequest
from frontend.openai.reply import Job, Reply
from frontend.openai.requests import check_alternatives, check_stream_options, to_parsers, to_requests
from frontend.openai.sampling import DEFAULT_TEMPERATURE, check_supported
from frontend.openai.tools.convert import check_results, escape_strings, escape_tool_use, to_message, to_tool_use
from frontend.text.chat_template import ChatTemplate, Rendering
from frontend.text.messages import Message, join_texts
from frontend.text.served_model import ServedModel
from frontend.text.tokenizer import Tokenizer
from frontend.text.tools import ToolUse

from .response import ChatFormat
from .types import ChatCompletionRequest, ChatMessage, PromptFields


def render_prompt(messages: Sequence[ChatMessage], fields: PromptFields, tool_use: ToolUse, model: ServedModel) -> str:
    """The prompt text of a conversation. Raises InvalidRequest with the field that is to blame."""
    escape = model.tokenizer.escape_special_tokens
    ours = [_to_message(message, index, model.tokenizer) for index, message in enumerate(messages)]
    check_results(ours)
    rendering = Rendering(
        add_generation_prompt=fields.add_generation_prompt is not False,
        continue_final_message=bool(fields.continue_final_message),
        variables=escape_strings(fields.chat_template_kwargs or {}, escape),
    )
    return _template(fields.chat_template, model).render(ours, escape_tool_use(tool_use, escape), rendering)


def tool_use_of(fields: PromptFields) -> ToolUse:
    """What a body wants of tools. Raises InvalidRequest."""
    functions = {f"tools[{index}].function": tool.function for index, tool in enumerate(fields.tools or ())}
    return to_tool_use(functions, fields.tool_choice, fields.parallel_tool_calls)


def to_chat_job(body: ChatCompletionRequest, model: ServedModel, reply: Reply, *, seed: int, guide: str | None) -> Job:
    """Check a body and put it in our words. `seed` is for a body without one, `guide` what the answers must follow."""
    check_supported(body)
    check_stream_options(body)
    check_alternatives("top_logprobs", body.top_logprobs)
    tool_use = tool_use_of(body)
    requests = to_requests(
        body,
        [model.tokenizer.encode(render_prompt(body.messages, body, tool_use, model))],
        model,
        max_tokens=_max_tokens(body),
        default_temperature=DEFAULT_TEMPERATURE,
        logprobs=bool(body.logprobs),
        seed=seed,
        guide=guide,
        num_choices=body.n or 1,
        tool_use=tool_use,
    )
    return Job(
        id=reply.id,
        requests=requests,
        format=_to_format(body, reply, requests, tool_use, model),
        stream=bool(body.stream),
        with_tokens=bool(body.logprobs or body.return_token_ids),
    )


def _to_format(
    body: ChatCompletionRequest,
    reply: Reply,
    requests: Sequence[GenerationRequest],
    tool_use: ToolUse,
    model: ServedModel,
) -> ChatFormat:
    prompt_token_ids = requests[0].prompt_token_ids
    return ChatFormat(
        reply,
        num_choices=len(requests),
        num_prompt_tokens=len(prompt_token_ids),
        logprobs=bool(body.logprobs),
        options=body.stream_options,
        prompt_token_ids=prompt_token_ids if body.return_token_ids else None,
        tool_choice=tool_use.choice,
        parsers=to_parsers(tool_use, model, len(requests)),
    )


def _to_message(message: ChatMessage, index: int, tokenizer: Tokenizer) -> Message:
    text = None if message.content is None else join_texts(part.text for part in message.content)
    role = "system" if message.role == "developer" else message.role
    return to_message(message, role, text, escape=tokenizer.escape_special_tokens, param=f"messages[{index}]")


def _template(source: str | None, model: ServedModel) -> ChatTemplate:
    if source is None:
        return model.template
    if not model.allow_chat_template:
        raise UnsupportedParameter(
            "`chat_template` is not allowed by this server's operator (--allow-chat-template).", param="chat_template"
        )
    return _other_template(model.template, source)


@lru_cache(maxsize=8)
def _other_template(template: ChatTemplate, source: str) -> ChatTemplate:
    return template.with_source(source)


def _max_tokens(body: ChatCompletionRequest) -> int | None:
    """`max_completion_tokens` is OpenAI's newer name for `max_tokens`."""
    old, new = body.max_tokens, body.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise UnsupportedParameter(
            "`max_tokens` and `max_completion_tokens` are two names for one thing; send one.", param="max_tokens"
        )
    return old if new is None else new
