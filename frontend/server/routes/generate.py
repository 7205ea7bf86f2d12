"""POST /v1/chat/completions, /v1/completions, /v1/messages and /invocations; /v1/responses is in responses.py.

Every request goes through the same steps in the same order: check, prompt, tokens, sampling parameters, compile, run.
"""

import secrets
import time
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from fastapi import APIRouter, Request
from starlette.responses import Response

from frontend.anthropic.request import to_messages_job
from frontend.anthropic.types import MessageObject, MessagesRequest
from frontend.openai.chat.request import to_chat_job
from frontend.openai.chat.types import ChatCompletion, ChatCompletionRequest
from frontend.openai.completions.request import to_completion_job
from frontend.openai.completions.types import Completion, CompletionRequest
from frontend.openai.invocations.request import InvocationRequest, to_invocation_job
from frontend.openai.job import Job
from frontend.openai.responses.types import ResponsesRequest
from frontend.server.disconnect import cancel_on_disconnect
from frontend.server.request_record import record_of
from frontend.server.service import Service
from frontend.server.streaming import respond

from .bodies import new_reply, report_ignored, report_unguided, with_body
from .dependencies import ServiceOf
from .openapi import documented, generates, with_anthropics_errors

router = APIRouter()

AnyRequest = TypeVar(
    "AnyRequest", ChatCompletionRequest, CompletionRequest, ResponsesRequest, MessagesRequest, InvocationRequest
)

Translated: TypeAlias = tuple[dict[str, str], Job]
"""Headers of the response, and the job."""


@router.post(
    "/v1/chat/completions",
    response_model=ChatCompletion,
    responses=generates("data: [DONE]"),
    openapi_extra=documented(ChatCompletionRequest, {"messages": [{"role": "user", "content": "Was ist ein Haus?"}]}),
)
async def create_chat_completion(http: Request, service: ServiceOf) -> Response:
    """Answer a conversation: as one JSON body, or with `stream` as server-sent events."""
    return await _answer(http, service, ChatCompletionRequest, to_chat_job)


@router.post(
    "/v1/completions",
    response_model=Completion,
    responses=generates("data: [DONE]"),
    openapi_extra=documented(CompletionRequest, {"prompt": "Ein Haus ist"}),
)
async def create_completion(http: Request, service: ServiceOf) -> Response:
    """Continue text or token ids: as one JSON body, or with `stream` as server-sent events."""
    return await _answer(http, service, CompletionRequest, to_completion_job)


@router.post(
    "/v1/messages",
    response_model=MessageObject,
    responses=with_anthropics_errors(generates("event: message_stop\ndata: ...")),
    openapi_extra=documented(
        MessagesRequest, {"max_tokens": 100, "messages": [{"role": "user", "content": "Was ist ein Haus?"}]}
    ),
)
async def create_message(http: Request, service: ServiceOf) -> Response:
    """Answer a conversation in Anthropic's API: as one JSON body, or with `stream` as server-sent events."""
    return await _answer(http, service, MessagesRequest, to_messages_job, prefix="msg_")


@router.post(
    "/invocations",
    response_model=ChatCompletion | Completion,
    responses=generates("data: [DONE]"),
    openapi_extra=documented(ChatCompletionRequest, {"messages": [{"role": "user", "content": "Was ist ein Haus?"}]}),
)
async def create_invocation(http: Request, service: ServiceOf) -> Response:
    """SageMaker's name for the first two: a body with `messages` is a conversation, one with `prompt` a completion."""
    return await _answer(http, service, InvocationRequest, to_invocation_job)


async def _answer(
    http: Request, service: Service, body_type: type[AnyRequest], to_job: Callable[..., Job], prefix: str = "cmpl-"
) -> Response:
    """The steps that these routes share. `to_job` translates the endpoint's body."""
    arrived_at = time.monotonic()
    translated = await with_body(http, body_type, service, translation(service, to_job, prefix))
    return await generate(http, service, translated, arrived_at)


def translation(service: Service, to_job: Callable[..., Job], prefix: str) -> Callable[[Any], Translated]:
    """The function from a checked body to what `generate` takes. The id of the reply begins with `prefix`."""
    seed = secrets.randbits(64)

    def translate(given: AnyRequest) -> Translated:
        body = given.root if isinstance(given, InvocationRequest) else given
        reply = new_reply(body.model, service, prefix)
        return report_ignored(body, reply, service), to_job(body, service.served_model, reply, seed=seed)

    return translate


async def generate(http: Request, service: Service, translated: Translated, arrived_at: float) -> Response:
    """Compile the job's constraint, if it has one, and run the job. Its time counts from `arrived_at`."""
    headers, job = translated
    record = record_of(http.scope)
    record.job = job
    service.request_log.received(record, job)
    await service.admission.check(http.scope["state"]["caller"], len(job.requests))
    if job.constraint is not None:
        record.begin("compile")
        compiling = service.guides.compile(job.constraint, http.scope["state"]["caller"])
        with service.metrics.compiling():
            guide = await cancel_on_disconnect(compiling, http.receive, arrived_at + service.request_timeout_s)
        job = job.with_guide(guide.ebnf)
        headers |= report_unguided(guide.unguided_tools)
    return respond(service, job, headers, arrived_at)
