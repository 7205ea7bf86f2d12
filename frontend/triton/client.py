"""The client of one engine in Triton: whether it is ready, what it declares, and the tokens of a request.

Triton cancels a request when its connection closes, so `generate` closes it in every case. Not here: the format of
tensors and events, see tensors.py.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import aiohttp
import orjson
from tritonclient.http.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from frontend.errors import EngineHangs, StartupError
from frontend.generation import Engine, GenerationRequest, TokenChunk

from .http_stream import OnBody, ReadCoalescing, Target, post
from .kv_cache import fetch_kv_cache, fit_context
from .tensors import ErrorParser, EventParser, encode_request, encode_stop, read_engine
from .token_budget import Budget, TokenBudget

_log = logging.getLogger(__name__)

OnChunks = Callable[[Sequence[TokenChunk]], bool]
"""Takes the chunks that have arrived, without blocking. Returns True when it wants no more."""

NO_HEADERS: Mapping[str, str] = {}
_CLOSES: Mapping[str, str] = {"connection": "close"}
"""Of a question. A Triton that ends waits for open connections until its time is up, and then ends with status 1."""
_HEALTH_TIMEOUT_S = 2.0
_HANGS_FOR_S = 60.0
_POLL_INTERVAL_S = 0.25


class TritonClient:
    """One engine of one Triton server, and the model that computes alternatives to its tokens, if it has one.

    `engine` is what the model declared at start. `headers` are sent with each request. `gathered_tokens` is the budget
    of requests for alternatives. `last_output_at` is the time of the last output, by time.monotonic.
    """

    def __init__(
        self,
        control: InferenceServerClient,
        url: str,
        model: str,
        engine: Engine,
        headers: Mapping[str, str],
        gathered_tokens: Budget,
    ) -> None:
        self._control = control
        self.model = model
        self._coalescing = ReadCoalescing()
        self._target = _target(url, model, headers)
        self._target_of_alternatives = _target(url, engine.log_probs_model or model, headers)
        self._gathered_tokens = gathered_tokens
        self._stopping: set[asyncio.Future[None]] = set()
        self.engine = engine
        self.last_output_at = float("-inf")
        self._hung_at = float("-inf")

    async def is_ready(self) -> bool:
        """Whether the model is ready; False also if Triton does not answer in time.

        Triton calls it ready while its process hangs. So it is not ready for a minute after Triton has given up on it,
        unless it has generated since.
        """
        hangs = self.last_output_at < self._hung_at > time.monotonic() - _HANGS_FOR_S
        is_ready = await _is_ready(self._control, self.model)
        if not is_ready:
            self._hung_at = float("-inf")  # Triton has ended; when it is ready again, its process is another one
        return is_ready and not hangs

    async def generate(
        self, request: GenerationRequest, on_chunks: OnChunks, headers: Mapping[str, str] = NO_HEADERS
    ) -> None:
        """Pass the tokens of a request to `on_chunks`, all chunks that have arrived at a time, until they end.

        `headers` are sent besides those of every request. Cancelling this cancels the request in Triton. Raises
        EngineUnavailable, EngineFailed, ContextLengthExceeded, and any exception that `on_chunks` raises.
        """
        if self.engine.log_probs_model is None or not request.sampling_params.has_alternatives:
            return await self._generate(self._target, request, on_chunks, headers)
        # The engine allocates memory for the logits of the longest possible answer when the request begins.
        async with self._gathered_tokens.reserved(request.sampling_params.max_tokens):
            request_id = uuid4().hex
            try:
                await self._generate(self._target_of_alternatives, request, on_chunks, headers, id=request_id)
            finally:
                self._stop(request_id)

    async def _generate(
        self, target: Target, request: GenerationRequest, on_chunks: OnChunks, headers: Mapping[str, str], **more: str
    ) -> None:
        body = orjson.dumps(encode_request(request, self.engine) | more)
        try:
            target = target.with_headers(headers) if headers else target
            await post(target, body, self._coalescing, lambda status: self._reader(status, request, on_chunks))
        except EngineHangs:
            self._hung_at = time.monotonic()
            raise

    def _stop(self, request_id: str) -> None:
        """Have the engine end a request, if it has not: Triton does not cancel the running step of an ensemble."""
        body = orjson.dumps(encode_stop(request_id))
        stopping = asyncio.ensure_future(post(self._target, body, self._coalescing, lambda _: lambda _: False))
        self._stopping.add(stopping)
        stopping.add_done_callback(self._on_stopped)

    def _on_stopped(self, stopping: "asyncio.Future[None]") -> None:
        self._stopping.discard(stopping)
        if not stopping.cancelled() and (error := stopping.exception()) is not None:
            _log.warning("the engine may still generate for a client that has gone: %s", error)

    def _reader(self, status: int, request: GenerationRequest, on_chunks: OnChunks) -> OnBody:
        params = request.sampling_params
        events = EventParser(
            with_log_probs=bool(params.logprobs),
            with_alternatives=params.has_alternatives,
            num_top=params.top_logprobs if self.engine.log_probs_model else None,
            tokens_per_block=self.engine.tokens_per_block,
        )
        feed = events.feed if status == 200 else ErrorParser(status).feed

        def on_body(data: bytes) -> bool:
            chunks = feed(data)
            if not chunks:
                return False
            self.last_output_at = time.monotonic()
            return on_chunks(chunks)

        return on_body


def _target(url: str, model: str, headers: Mapping[str, str]) -> Target:
    return Target.of(f"{url}/v2/models/{quote(model)}/generate_stream", headers)


@asynccontextmanager
async def open_triton(
    url: str,
    model: str,
    *,
    startup_timeout_s: float,
    with_cached_tokens: bool = False,
    metrics_url: str = "",
    headers: Mapping[str, str] = NO_HEADERS,
    to_budget: Callable[[int], Budget] = TokenBudget,
) -> AsyncIterator[TritonClient]:
    """Wait for the model and read what it declares. Leaving closes the control connection. Raises StartupError.

    `with_cached_tokens`: generations report how many tokens of their prompt were in the KV cache. `metrics_url`: where
    the size of that cache is read, which bounds the context; empty if it is not. `headers` are what Triton requires.
    `to_budget` makes the budget of requests for alternatives, from the tokens that the engine can gather.
    """
    url = url.rstrip("/")
    if not url.startswith("http://"):
        raise StartupError(f"triton_url is {url}; accepted: http://HOST:PORT, on loopback or an internal network")
    async with InferenceServerClient(url.removeprefix("http://"), conn_timeout=_HEALTH_TIMEOUT_S) as control:
        await _wait_until_ready(control, url, model, startup_timeout_s)
        engine = read_engine(await _read_config(control, model, headers), with_cached_tokens=with_cached_tokens)
        if engine.log_probs_model is not None:
            await _wait_until_ready(control, url, engine.log_probs_model, startup_timeout_s)
        if metrics_url and (kv_cache := await fetch_kv_cache(metrics_url, model)):
            engine = fit_context(engine, kv_cache)
        yield TritonClient(control, url, model, engine, headers, to_budget(engine.max_gathered_tokens))


async def _wait_until_ready(control: InferenceServerClient, url: str, model: str, timeout_s: float) -> None:
    give_up = time.monotonic() + timeout_s
    while not await _is_ready(control, model):
        if time.monotonic() > give_up:
            raise StartupError(f"no model `{model}` ready at {url} after {timeout_s:g} s: is Triton running?")
        await asyncio.sleep(_POLL_INTERVAL_S)


async def _read_config(control: InferenceServerClient, model: str, headers: Mapping[str, str]) -> Mapping[str, Any]:
    """Triton's JSON of the model's config.pbtxt."""
    try:
        config: Mapping[str, Any] = await control.get_model_config(model, headers={**headers, **_CLOSES})
    except InferenceServerException as exc:
        raise StartupError(f"Triton does not give the configuration of `{model}`: {exc.message()}") from exc
    return config


async def _is_ready(control: InferenceServerClient, model: str) -> bool:
    try:
        return bool(await control.is_model_ready(model, headers=_CLOSES))
    except (TimeoutError, aiohttp.ClientError, InferenceServerException):
        return False
