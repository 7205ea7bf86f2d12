"""The connection to Triton: is the model there, what does it declare, and the token stream of a request.

Refuses to interpret what it carries: tensors.py does. Closing a response is how a request is cancelled, so every way
out of `generate` closes it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import quote

import aiohttp
import orjson
from tritonclient.http.aio import InferenceServerClient  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from .errors import EngineUnavailable, StartupError
from .generation import Engine, GenerationRequest, TokenChunk
from .tensors import EventParser, encode_request, read_engine, to_error

_CONNECT_TIMEOUT_S = 5.0
_HEALTH_TIMEOUT_S = 2.0
_POLL_INTERVAL_S = 0.25


class TritonClient:
    """One model of one Triton server. `engine` is what it declared at start."""

    def __init__(
        self, session: aiohttp.ClientSession, control: InferenceServerClient, url: str, model: str, engine: Engine
    ) -> None:
        self._session = session
        self._control = control
        self._model = model
        self._generate_url = f"{url}/v2/models/{quote(model)}/generate_stream"
        self.engine = engine

    async def is_ready(self) -> bool:
        """True if Triton has the model loaded and says so promptly."""
        return await _is_ready(self._control, self._model)

    @asynccontextmanager
    async def generate(self, request: GenerationRequest) -> AsyncIterator[AsyncIterator[list[TokenChunk]]]:
        """The tokens of a request, as many chunks at a time as have arrived. Leaving cancels what is not finished.

        Raises UnsupportedParameter, EngineUnavailable, EngineFailed, ContextLengthExceeded.
        """
        body = orjson.dumps(encode_request(request, self.engine))
        with _triton_errors():
            response = await self._session.post(self._generate_url, data=body)
            try:
                if response.status != 200:
                    raise to_error(f"{response.status} {await response.text()}")
                yield _token_chunks(response)
            finally:
                response.close()


async def _token_chunks(response: aiohttp.ClientResponse) -> AsyncIterator[list[TokenChunk]]:
    """`readany` gives all that has arrived: whoever falls behind gets more per turn, and catches up."""
    parser, content = EventParser(), response.content
    while data := await content.readany():
        if chunks := parser.feed(data):
            yield chunks


@contextmanager
def _triton_errors() -> Iterator[None]:
    """aiohttp's errors to ours; nothing wider, so that our own bugs stay visible."""
    try:
        yield
    except aiohttp.ClientError as exc:
        raise EngineUnavailable("The engine cannot be reached.") from exc


@asynccontextmanager
async def open_triton(url: str, model: str, *, startup_timeout_s: float) -> AsyncIterator[TritonClient]:
    """Wait for the model, read what it declares, and close all connections in the end. Raises StartupError."""
    url = url.rstrip("/")
    # No connection is kept for reuse: a request on one that Triton has just closed would fail, and cannot be repeated.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    # No limit on reading: a timer per read costs more than parsing it, and every request has a deadline as it is.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S)
    headers = {"Content-Type": "application/json"}
    session = aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers)
    async with session, InferenceServerClient(url.removeprefix("http://"), conn_timeout=_HEALTH_TIMEOUT_S) as control:
        await _wait_until_ready(control, url, model, startup_timeout_s)
        engine = read_engine(await control.get_model_config(model))
        yield TritonClient(session, control, url, model, engine)


async def _wait_until_ready(control: InferenceServerClient, url: str, model: str, timeout_s: float) -> None:
    give_up = time.monotonic() + timeout_s
    while not await _is_ready(control, model):
        if time.monotonic() > give_up:
            raise StartupError(f"no model `{model}` ready at {url} after {timeout_s:g} s: is Triton running?")
        await asyncio.sleep(_POLL_INTERVAL_S)


async def _is_ready(control: InferenceServerClient, model: str) -> bool:
    try:
        return bool(await control.is_model_ready(model))
    except (aiohttp.ClientError, asyncio.TimeoutError, InferenceServerException):
        return False
