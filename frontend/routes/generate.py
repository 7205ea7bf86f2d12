"""POST /v1/chat/completions, /v1/completions and /v1/responses."""

import secrets

from fastapi import APIRouter, Request
from starlette.responses import Response

from frontend.answers import answer
from frontend.chat import to_chat_job
from frontend.completions import to_completion_job
from frontend.protocol.chat import ChatCompletion, ChatCompletionRequest
from frontend.protocol.completions import Completion, CompletionRequest
from frontend.protocol.responses import ResponseObject, ResponsesRequest
from frontend.responses import to_responses_job

from .bodies import documented, new_reply, off_loop, read_body, report_ignored
from .dependencies import ServiceOf

router = APIRouter()


@router.post("/v1/chat/completions", response_model=ChatCompletion, openapi_extra=documented(ChatCompletionRequest))
async def create_chat_completion(http: Request, service: ServiceOf) -> Response:
    """Answer a conversation: as one JSON body, or with `stream` as server-sent events."""
    body, body_bytes = await read_body(http, ChatCompletionRequest, service.max_body_bytes)
    reply = new_reply(body.model, service)
    headers = report_ignored(body, reply, service)
    seed = secrets.randbits(64)
    job = await off_loop(body_bytes, lambda: to_chat_job(body, service.served_model, reply, seed=seed, guide=None))
    return answer(service, job, headers)


@router.post("/v1/completions", response_model=Completion, openapi_extra=documented(CompletionRequest))
async def create_completion(http: Request, service: ServiceOf) -> Response:
    """Continue text or token ids: as one JSON body, or with `stream` as server-sent events."""
    body, body_bytes = await read_body(http, CompletionRequest, service.max_body_bytes)
    reply = new_reply(body.model, service)
    headers = report_ignored(body, reply, service)
    seed = secrets.randbits(64)
    job = await off_loop(
        body_bytes, lambda: to_completion_job(body, service.served_model, reply, seed=seed, guide=None)
    )
    return answer(service, job, headers)


@router.post("/v1/responses", response_model=ResponseObject, openapi_extra=documented(ResponsesRequest))
async def create_response(http: Request, service: ServiceOf) -> Response:
    """Answer a conversation in OpenAI's newer API: as one JSON body, or with `stream` as server-sent events."""
    body, body_bytes = await read_body(http, ResponsesRequest, service.max_body_bytes)
    reply = new_reply(body.model, service, "resp_")
    headers = report_ignored(body, reply, service)
    model, seed = service.served_model, secrets.randbits(64)
    job = await off_loop(body_bytes, lambda: to_responses_job(body, model, reply, seed=seed, guide=None))
    return answer(service, job, headers)
