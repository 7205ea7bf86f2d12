"""Routes for operators: health checks, metrics, load, version. middleware/auth.py decides which of them need a key."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from fastapi import APIRouter
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import BaseModel
from starlette.responses import PlainTextResponse, Response

from frontend.errors import FrontendError, QueueFull
from frontend.generation import Delta, GenerationRequest, SamplingParams
from frontend.server.metrics_text import values_text
from frontend.server.run import Generation, run
from frontend.server.service import Service
from frontend.text.detokenizer import AnswerDecoder
from frontend.triton.kv_cache import fetch_kv_cache

from .dependencies import ServiceOf
from .openapi import READS, UP_OR_DOWN

router = APIRouter()

_GENERATE_TIMEOUT_S = 10.0
"""Time for one token. A step of a full CPU engine takes 2 s."""

_POLL_INTERVAL_S = 0.05


class Limits(BaseModel):
    """What a request and the server are limited to: the context in tokens, generations at a time and in the queue."""

    max_model_len: int
    max_num_seqs: int
    max_queue_length: int
    max_body_bytes: int
    request_timeout_s: float


class Load(BaseModel):
    """vLLM's object."""

    server_load: int


class Version(BaseModel):
    """`version` is this product's, where vLLM has its own; `engine` has the versions that the engine was built with."""

    version: str
    model: str
    engine: Mapping[str, str]
    limits: Limits


@router.get("/health/live", response_class=Response)
async def live() -> Response:
    """200 as long as this process answers; no body."""
    return Response()


@router.get("/ping", response_class=Response, responses=UP_OR_DOWN)
@router.get("/health", response_class=Response, responses=UP_OR_DOWN)
@router.get("/health/ready", response_class=Response, responses=UP_OR_DOWN)
async def ready(service: ServiceOf) -> Response:
    """200 while Triton has the model ready, else 503; no body. `/ping` is SageMaker's name."""
    return _up(await service.triton.is_ready())


@router.get("/health/generate", response_class=Response, responses=READS | UP_OR_DOWN)
async def generate(service: ServiceOf) -> Response:
    """200 if the engine has generated within 10 s, else 503; no body.

    Asks for one token, in the queue like any request. Under load it does not wait for its own: a token of any request
    shows that the engine generates. So a busy server is healthy, even with a full queue, and one that hangs is not.
    """
    return _up(await _generates(service))


@router.get("/metrics", response_class=PlainTextResponse, responses=READS)
async def metrics(service: ServiceOf) -> Response:
    """For Prometheus, under the names of vLLM's metrics."""
    url = service.triton_metrics_url
    kv_cache = await fetch_kv_cache(url, service.triton.model) if url else None
    load = await service.overview.load()
    values = values_text(service.metrics.labels, load.num_running, load.num_waiting, kv_cache)
    return Response(values + await service.overview.counts(), media_type=CONTENT_TYPE_PLAIN_0_0_4)


@router.get("/load", responses=READS)
async def show_load(service: ServiceOf) -> Load:
    """How many generations run or wait; vLLM counts requests."""
    load = await service.overview.load()
    return Load(server_load=load.num_running + load.num_waiting)


@router.get("/version", responses=READS)
async def show_version(service: ServiceOf) -> Version:
    """The versions of the product and of the engine, and the limits that this server has."""
    limits = Limits(
        max_model_len=service.served_model.engine.max_seq_len,
        max_num_seqs=service.admission.max_running,
        max_queue_length=service.admission.max_waiting,
        max_body_bytes=service.max_body_bytes,
        request_timeout_s=service.request_timeout_s,
    )
    return Version(
        version=version("mixtral-triton"), model=service.triton.model, engine=service.engine_versions, limits=limits
    )


def _up(is_up: bool) -> Response:
    return Response(status_code=200 if is_up else 503)


async def _generates(service: Service) -> bool:
    """Whether the engine sends output for any request before the deadline, or before our own request has failed."""
    begin = time.monotonic()
    asking = asyncio.ensure_future(_ask_for_a_token(service))
    try:
        while await _last_output_at(service) < begin and not asking.done():
            await asyncio.wait({asking}, timeout=_POLL_INTERVAL_S)
    finally:
        asking.cancel()
        await asyncio.wait({asking})
    if not asking.cancelled():
        asking.result()
    return await _last_output_at(service) >= begin


async def _last_output_at(service: Service) -> float:
    return (await service.overview.load()).totals.last_output_at


async def _ask_for_a_token(service: Service) -> None:
    """Generate one token; which one does not matter. Returns when it has come, or when that has failed."""
    end_tokens = service.served_model.end_tokens
    params = SamplingParams(max_tokens=1, temperature=0, top_p=1, seed=0, ignore_eos=True)
    request = GenerationRequest(prompt_token_ids=(end_tokens.end_id,), sampling_params=params, end_tokens=end_tokens)
    generation = Generation(request, AnswerDecoder(request, {}, with_tokens=False))

    async def ask() -> None:
        try:
            await run(service, [generation], _Discard(), "/health/generate")
        except QueueFull:
            await asyncio.sleep(_GENERATE_TIMEOUT_S)  # meanwhile a token of another request may come

    try:
        await asyncio.wait_for(ask(), _GENERATE_TIMEOUT_S)
    except (TimeoutError, FrontendError):
        return


class _Discard:
    """A listener that ignores the token; Triton's client records when it came."""

    def on_start(self, index: int) -> None:
        """See `run.Listener`."""

    def on_deltas(self, index: int, deltas: Sequence[Delta]) -> None:
        """See `run.Listener`."""

    def on_finish(self, index: int) -> None:
        """See `run.Listener`."""
