"""Prompts and token ids without generating: /tokenize, /detokenize, /v1/chat/completions/render, and Anthropic's count.

Answers are written where the body was read: 60,000 token ids would take 6 ms of the event loop.
"""

import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from frontend.anthropic import request as anthropic
from frontend.anthropic.types import CountTokensRequest, CountTokensResponse
from frontend.openai.chat.request import render_prompt, tool_use_of
from frontend.openai.chat.types import ChatCompletionRequest
from frontend.openai.prompt_size import check_chars, to_token_ids
from frontend.openai.sampling import check_token_ids
from frontend.openai.tokenize.types import (
    DetokenizeRequest,
    DetokenizeResponse,
    RenderResponse,
    TokenizeRequest,
    TokenizeResponse,
    TokenizerInfo,
)
from frontend.openai.unsupported import check_supported

from .bodies import check_model, with_body
from .dependencies import ServiceOf
from .openapi import READS, TAKES_A_BODY, documented, with_anthropics_errors

router = APIRouter()


@router.post(
    "/tokenize",
    response_model=TokenizeResponse,
    responses=TAKES_A_BODY,
    openapi_extra=documented(TokenizeRequest, {"prompt": "Ein Haus"}),
)
async def tokenize(http: Request, service: ServiceOf) -> Response:
    """The token ids of a text, or of a conversation as the engine would get it."""
    model = service.served_model

    def encode(body: TokenizeRequest) -> list[int]:
        check_model(body.model, service)
        check_supported(body)
        if body.messages is None:
            text, add_special_tokens = body.prompt or "", body.add_special_tokens is not False
            check_chars([text], model, param="prompt")
            encoded = model.tokenizer.encode_text_in_pieces(text, add_special_tokens=add_special_tokens)
            return to_token_ids(encoded, model, "prompt")
        prompt = render_prompt(body.messages, body, tool_use_of(body), model)
        return to_token_ids(model.tokenizer.encode_in_pieces(prompt), model)

    def answer(body: TokenizeRequest) -> Response:
        token_ids = encode(body)
        return _json(
            TokenizeResponse(
                count=len(token_ids),
                max_model_len=model.engine.max_seq_len,
                tokens=token_ids,
                token_strs=model.tokenizer.strings_of(token_ids) if body.return_token_strs else None,
            )
        )

    return await with_body(http, TokenizeRequest, service, answer)


@router.get("/tokenizer_info", responses=READS)
async def show_tokenizer(service: ServiceOf) -> TokenizerInfo:
    """The checkpoint's tokenizer_config.json, with the chat template that is served."""
    return TokenizerInfo.model_validate(service.tokenizer_config)


@router.post(
    "/detokenize",
    response_model=DetokenizeResponse,
    responses=TAKES_A_BODY,
    openapi_extra=documented(DetokenizeRequest, {"tokens": [1, 733]}),
)
async def detokenize(http: Request, service: ServiceOf) -> Response:
    """The text of token ids, special tokens written out."""
    model = service.served_model

    def decode(body: DetokenizeRequest) -> Response:
        check_model(body.model, service)
        check_token_ids("tokens", body.tokens, model.vocab_size)
        return _json(DetokenizeResponse(prompt=model.tokenizer.decode(body.tokens)))

    return await with_body(http, DetokenizeRequest, service, decode)


@router.post(
    "/v1/chat/completions/render",
    response_model=RenderResponse,
    responses=TAKES_A_BODY,
    openapi_extra=documented(ChatCompletionRequest, {"messages": [{"role": "user", "content": "Was ist ein Haus?"}]}),
)
async def render_chat_completion(http: Request, service: ServiceOf) -> Response:
    """The exact prompt that the engine would get for a chat body, as text and as token ids."""
    model = service.served_model

    def render(body: ChatCompletionRequest) -> Response:
        check_model(body.model, service)
        check_supported(body)
        prompt = render_prompt(body.messages, body, tool_use_of(body), model)
        token_ids = to_token_ids(model.tokenizer.encode_in_pieces(prompt), model)
        text = model.tokenizer.unescape_special_tokens(prompt)
        return _json(RenderResponse(prompt=text, prompt_token_ids=token_ids))

    return await with_body(http, ChatCompletionRequest, service, render)


@router.post(
    "/v1/messages/count_tokens",
    response_model=CountTokensResponse,
    responses=with_anthropics_errors(TAKES_A_BODY),
    openapi_extra=documented(CountTokensRequest, {"messages": [{"role": "user", "content": "Was ist ein Haus?"}]}),
)
async def count_tokens(http: Request, service: ServiceOf) -> Response:
    """How many tokens the prompt of a body in Anthropic's API has."""
    model = service.served_model

    def count(body: CountTokensRequest) -> Response:
        check_model(body.model, service)
        check_supported(body)
        prompt = anthropic.render_prompt(body, anthropic.tool_use_of(body), model)
        token_ids = to_token_ids(model.tokenizer.encode_in_pieces(prompt), model)
        return _json(CountTokensResponse(input_tokens=len(token_ids)))

    return await with_body(http, CountTokensRequest, service, count)


def _json(answer: BaseModel) -> Response:
    """Written by orjson: pydantic's writer keeps the GIL twice as long, 15 ms for 100,000 token ids."""
    fields = {name: value for name, value in answer if value is not None}
    return Response(orjson.dumps(fields), media_type="application/json")
