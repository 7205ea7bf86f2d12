"""POST /v1/chat/completions, /v1/completions and /v1/responses."""

import secrets
import time
from collections.abc import Callable
from typing import TypeVar

from fastapi import APIRouter, Request
from starlette.responses import Response

from frontend.guided_decoding import Constraint
from frontend.openai.chat.request import to_chat_job, tool_use_of
from frontend.openai.chat.types import ChatCompletion, ChatCompletionRequest
from frontend.openai.completions.request import to_completion_job
from frontend.openai.completions.types import Completion, CompletionRequest
from frontend.openai.reply import Job
from frontend.openai.responses.request import responses_tool_use, to_responses_job
from frontend.openai.responses.types import ResponseObject, ResponsesRequest
from frontend.openai.structured_output import to_guide
from frontend.server.disconnect import cancel_on_disconnect
from frontend.server.service import Service
from frontend.server.streaming import answer

from .bodies import new_reply, off_loop, read_body, report_ignored
from .dependencies import ServiceOf
from .openapi import documented, generates

router = APIRouter()

AnyRequest = TypeVar("AnyRequest", ChatCompletionRequest, CompletionRequest, ResponsesRequest)


@router.post(
    "/v1/chat/completions",
    response_model=ChatCompletion,
    responses=generates("data: [DONE]"),
    openapi_extra=documented(ChatCompletionRequest, {"messages": [{"role": "user", "content": "Was ist ein Haus?"}]}),
)
async def create_chat_completion(http: Request, service: ServiceOf) -> Response:
    """Answer a conversation: as one JSON body, or with `stream` as server-sent events."""
    return await _answer(
        http, service, ChatCompletionRequest, to_chat_job, lambda body, model: to_guide(body, model, tool_use_of(body))
    )


@router.post(
    "/v1/completions",
    response_model=Completion,
    responses=generates("data: [DONE]"),
    openapi_extra=documented(CompletionRequest, {"prompt": "Ein Haus ist"}),
)
async def create_completion(http: Request, service: ServiceOf) -> Response:
    """Continue text or token ids: as one JSON body, or with `stream` as server-sent events."""
    return await _answer(http, service, CompletionRequest, to_completion_job, to_guide)


@router.post(
    "/v1/responses",
    response_model=ResponseObject,
    responses=generates("event: response.completed\ndata: ..."),
    openapi_extra=documented(ResponsesRequest, {"input": "Was ist ein Haus?"}),
)
async def create_response(http: Request, service: ServiceOf) -> Response:
    """Answer a conversation in OpenAI's newer API: as one JSON body, or with `stream` as server-sent events."""
    return await _answer(
        http,
        service,
        ResponsesRequest,
        to_responses_job,
        lambda body, model: to_guide(body, model, responses_tool_use(body)),
        prefix="resp_",
    )


async def _answer(
    http: Request,
    service: Service,
    body_type: type[AnyRequest],
    to_job: Callable[..., Job],
    guide_of: Callable[..., Constraint | None],
    prefix: str = "cmpl-",
) -> Response:
    """What the routes have in common; `to_job` is the endpoint's own translation."""
    begin = time.monotonic()
    body, body_bytes = await read_body(http, body_type, service.max_body_bytes)
    reply = new_reply(body.model, service, prefix)
    headers = report_ignored(body, reply, service)
    model, seed = service.served_model, secrets.randbits(64)
    wish = guide_of(body, model)
    guide = None
    if wish is not None:
        compiling = service.guides.compile(wish)
        guide = await cancel_on_disconnect(compiling, http.receive, begin + service.request_timeout_s)
    job = await off_loop(body_bytes, lambda: to_job(body, model, reply, seed=seed, guide=guide))
    return answer(service, job, headers, begin)
