"""POST /v1/responses, and with --response-store what is stored of it, below /v1/responses/{id}."""

import time
from collections.abc import Callable
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from frontend.errors import InvalidRequest, NotFound, ResponseNotFound, StoreFailed, UnsupportedParameter
from frontend.openai.responses.conversation import Conversation
from frontend.openai.responses.input_items import ItemList, Order, list_items
from frontend.openai.responses.request import to_responses_job
from frontend.openai.responses.types import DeletedResponse, ResponseObject, ResponsesRequest
from frontend.server.request_record import record_of
from frontend.server.response_store import ResponseStore
from frontend.server.service import Service

from .bodies import with_body
from .dependencies import ServiceOf
from .generate import Translated, generate, translation
from .openapi import READS, documented, failures, generates

router = APIRouter()

_PREFIX = "resp_"
"""OpenAI's ids of responses begin with it."""
_OF_THE_STORE = READS | failures(ResponseNotFound, UnsupportedParameter, StoreFailed)


@router.post(
    "/v1/responses",
    response_model=ResponseObject,
    responses=generates("event: response.completed\ndata: ...") | failures(ResponseNotFound),
    openapi_extra=documented(ResponsesRequest, {"input": "Was ist ein Haus?"}),
)
async def create_response(http: Request, service: ServiceOf) -> Response:
    """Answer a conversation in OpenAI's newer API: as one JSON body, or with `stream` as server-sent events."""
    arrived_at = time.monotonic()
    if service.responses is None:
        translated = await with_body(http, ResponsesRequest, service, translation(service, to_responses_job, _PREFIX))
    else:
        translated = await _translated_with_memory(http, service, service.responses)
    return await generate(http, service, translated, arrived_at)


@router.get("/v1/responses/{response_id}", response_model=ResponseObject, responses=_OF_THE_STORE)
async def retrieve_response(
    http: Request,
    service: ServiceOf,
    response_id: str,
    stream: Annotated[bool, Query(description="`false` only: the response is complete")] = False,
) -> Response:
    """A stored response, as its client got it."""
    if stream:
        raise UnsupportedParameter("`stream` is not supported: a stored response is complete.", param="stream")
    stored = await _store_of(service).find(_owner(http), response_id, "response_id")
    return Response(stored.reply, media_type="application/json")


@router.delete("/v1/responses/{response_id}", responses=_OF_THE_STORE)
async def delete_response(http: Request, service: ServiceOf, response_id: str) -> DeletedResponse:
    """Delete a stored response. Those that continue it stay, with the whole conversation."""
    await _store_of(service).delete(_owner(http), response_id)
    return DeletedResponse(id=response_id)


@router.get("/v1/responses/{response_id}/input_items", responses=_OF_THE_STORE)
async def list_input_items(
    http: Request,
    service: ServiceOf,
    response_id: str,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Annotated[Order, Query(description="`desc`: the newest first")] = "desc",
    after: Annotated[str | None, Query(description="the id of an item; those behind it are listed")] = None,
) -> ItemList:
    """The items that a stored response was generated from, those of earlier responses included."""
    return list_items(await _store_of(service).find(_owner(http), response_id, "response_id"), limit, order, after)


@router.post("/v1/responses/{response_id}/cancel", response_model=ResponseObject, responses=_OF_THE_STORE)
async def cancel_response(http: Request, service: ServiceOf, response_id: str) -> Response:
    """400, as OpenAI answers for a response without `background`. One that runs is cancelled by closing its request."""
    await _store_of(service).find(_owner(http), response_id, "response_id")
    raise InvalidRequest("Only a response with `background` can be cancelled; this server has none.")


async def _translated_with_memory(http: Request, service: Service, store: ResponseStore) -> Translated:
    """As `with_body`. A body that continues a stored response waits for it before it is translated."""
    translate = _continuing(service, Conversation())

    def work(body: ResponsesRequest) -> ResponsesRequest | Translated:
        return translate(body) if body.previous_response_id is None else body

    done = await with_body(http, ResponsesRequest, service, work)
    if not isinstance(done, ResponsesRequest):
        return done
    assert done.previous_response_id is not None
    stored = await store.find(_owner(http), done.previous_response_id, "previous_response_id")
    translate = _continuing(service, Conversation(stored.conversation))
    return await service.off_loop.run(
        lambda: translate(done), http, len(stored.conversation), service.request_timeout_s
    )


def _continuing(service: Service, earlier: Conversation) -> Callable[[ResponsesRequest], Translated]:
    return translation(service, partial(to_responses_job, earlier=earlier), _PREFIX)


def _store_of(service: Service) -> ResponseStore:
    """Raises NotFound where nothing is stored."""
    if service.responses is None:
        raise NotFound("No response is stored here: this server runs without --response-store.")
    return service.responses


def _owner(http: Request) -> str:
    return record_of(http.scope).key or ""
