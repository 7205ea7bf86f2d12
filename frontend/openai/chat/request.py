"""A chat body to a job: check, prompt, tokens, sampling parameters. Pure."""

from collections.abc import Sequence
from functools import lru_cache

from frontend.errors import InvalidRequest, UnsupportedParameter
from frontend.generation import GenerationRequest
from frontend.openai.job import Job
from frontend.openai.prompt_size import check_chars, max_prompt_tokens, to_token_ids
from frontend.openai.reply import Reply
from frontend.openai.requests import (
    check_alternatives,
    check_prompt_logprobs,
    check_stream_options,
    to_parsers,
    to_requests,
)
from frontend.openai.sampling import DEFAULT_TEMPERATURE, NO_LOGPROBS, WantedLogprobs
from frontend.openai.structured_output import response_format_constraint, to_constraint
from frontend.openai.tools.convert import check_results, check_tool_fields, to_result, to_tool_calls, to_tool_use
from frontend.openai.unsupported import check_supported
from frontend.text.chat_template import ChatTemplate, Rendering
from frontend.text.escape import EscapeSpecialTokens, escape_strings, escape_tool_use
from frontend.text.messages import Message, join_texts
from frontend.text.served_model import ServedModel
from frontend.text.tools import ToolUse

from .response import ChatWriter
from .types import ChatCompletionRequest, ChatMessage, PromptFields


def to_chat_job(body: ChatCompletionRequest, model: ServedModel, reply: Reply, *, seed: int) -> Job:
    """The job of a checked body. `seed` is for a body without one. Raises InvalidRequest naming the field."""
    check_supported(body)
    check_stream_options(body)
    wanted = _wanted_logprobs(body, model)
    max_tokens = _max_tokens(body)
    tool_use = tool_use_of(body)
    constraint = to_constraint(body, response_format_constraint(body), model, tool_use)
    prompt = render_prompt(body.messages, body, tool_use, model, max_tokens=max_prompt_tokens(body, model))
    requests = to_requests(
        body,
        [to_token_ids(model.tokenizer.encode_in_pieces(prompt), model)],
        model,
        max_tokens=max_tokens,
        default_temperature=DEFAULT_TEMPERATURE,
        wanted=wanted,
        seed=seed,
        num_choices=body.n or 1,
        tool_use=tool_use,
    )
    return Job(
        id=reply.id,
        model=reply.model,
        requests=requests,
        writer=_to_writer(body, reply, requests, tool_use, model),
        stream=bool(body.stream),
        num_choices=body.n or 1,
        with_tokens=wanted != NO_LOGPROBS or bool(body.return_token_ids),
        constraint=constraint,
    )


def _wanted_logprobs(body: ChatCompletionRequest, model: ServedModel) -> WantedLogprobs:
    """Raises InvalidRequest and UnsupportedParameter."""
    check_prompt_logprobs(body)
    if body.top_logprobs and not body.logprobs:
        raise InvalidRequest("`top_logprobs` needs `logprobs` to be true.", param="top_logprobs")
    check_alternatives(model, top_logprobs=bool(body.top_logprobs), prompt_logprobs=body.prompt_logprobs is not None)
    return WantedLogprobs(
        logprobs=bool(body.logprobs), top_logprobs=body.top_logprobs or 0, prompt_logprobs=body.prompt_logprobs
    )


def tool_use_of(fields: PromptFields) -> ToolUse:
    """The tools of a body and how the answer may call them. Raises InvalidRequest."""
    functions = {f"tools[{index}].function": tool.function for index, tool in enumerate(fields.tools or ())}
    return to_tool_use(functions, fields.tool_choice, fields.parallel_tool_calls)


def render_prompt(
    messages: Sequence[ChatMessage],
    fields: PromptFields,
    tool_use: ToolUse,
    model: ServedModel,
    *,
    max_tokens: int | None = None,
) -> str:
    """The prompt text of a conversation. `max_tokens` is the most that it may have: see `prompt_size.check_chars`.

    Raises InvalidRequest naming the field.
    """
    check_chars((part.text for message in messages for part in message.content or ()), model, max_tokens)
    escape = model.tokenizer.escape_special_tokens
    conversation = [to_message(message, f"messages[{index}]", escape) for index, message in enumerate(messages)]
    check_results(conversation)
    rendering = Rendering(
        add_generation_prompt=fields.add_generation_prompt is not False,
        continue_final_message=bool(fields.continue_final_message),
        variables=escape_strings(fields.chat_template_kwargs or {}, escape),
    )
    template = _template(fields.chat_template, model)
    return template.render(conversation, escape_tool_use(tool_use, escape), rendering)


def to_message(message: ChatMessage, param: str, escape: EscapeSpecialTokens) -> Message:
    """A message for a prompt, escaped. `param` is its path in the request. Raises InvalidRequest."""
    role = "system" if message.role == "developer" else message.role
    check_tool_fields(message, role, has_content=message.content is not None, param=param)
    text = join_texts(part.text for part in message.content or ())
    if message.tool_call_id is not None:
        return to_result(message.tool_call_id, text, escape=escape)
    calls = to_tool_calls(message.tool_calls or (), escape=escape, param=param)
    return Message(role, escape(text), calls)


def _to_writer(
    body: ChatCompletionRequest,
    reply: Reply,
    requests: Sequence[GenerationRequest],
    tool_use: ToolUse,
    model: ServedModel,
) -> ChatWriter:
    prompt_token_ids = requests[0].prompt_token_ids
    return ChatWriter(
        reply,
        num_choices=len(requests),
        num_prompt_tokens=len(prompt_token_ids),
        logprobs=bool(body.logprobs),
        tokens_as_ids=bool(body.return_tokens_as_token_ids),
        num_prompt_top=body.prompt_logprobs,
        options=body.stream_options,
        prompt_token_ids=prompt_token_ids if body.return_token_ids else None,
        tool_choice=tool_use.choice,
        parsers=to_parsers(tool_use, model, len(requests)),
    )


def _template(source: str | None, model: ServedModel) -> ChatTemplate:
    if source is None:
        return model.template
    if not model.allow_chat_template:
        raise UnsupportedParameter(
            "`chat_template` is not allowed by this server's operator (--allow-chat-template).", param="chat_template"
        )
    return _template_of(source, model.template)


@lru_cache(maxsize=8)
def _template_of(source: str, template: ChatTemplate) -> ChatTemplate:
    """A request's own template. Cached, because a new template renders its probes first."""
    return template.with_source(source)


def _max_tokens(body: ChatCompletionRequest) -> int | None:
    """`max_completion_tokens` is OpenAI's newer name for `max_tokens`; it counts, as in vLLM."""
    return body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
