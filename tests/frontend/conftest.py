"""The frontend on a loopback port in front of a fake Triton, both in a thread beside the tests."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import uvicorn
from aiohttp import web
from starlette.types import ASGIApp

from frontend.engine_dir import read_engine_dir
from frontend.generation import SamplingDefaults
from frontend.guided_decoding import GuideCompiler
from frontend.guided_decoding.vocabulary import vocabulary_of
from frontend.server.admission import Admission
from frontend.server.app import create_app
from frontend.server.body_memory import BodyMemory
from frontend.server.caller_limits import CallerLimits
from frontend.server.connection import OnRefusal, connection_factory
from frontend.server.connection_counts import ConnectionCounts
from frontend.server.connection_limits import ConnectionLimits
from frontend.server.metrics import Metrics
from frontend.server.middleware.api_keys import read_api_keys
from frontend.server.middleware.stack import with_middleware
from frontend.server.overview import OwnCounts, OwnOverview
from frontend.server.request_log import log_answer
from frontend.server.response_store import ResponseStore
from frontend.server.service import Service
from frontend.text.chat_template import ChatTemplate
from frontend.text.served_model import ServedModel
from frontend.text.tokenizer import Tokenizer
from frontend.triton.client import TritonClient, open_triton
from frontend.triton.tensors import read_engine
from tests.frontend.chatml_tokenizer import write_chatml_tokenizer
from tests.frontend.engine_files import write_manifest
from tests.frontend.fake_triton import FakeTriton

MODEL = "/opt/models/casperhansen/mixtral-instruct-awq"
CHAT = "/v1/chat/completions"
MAX_BODY_BYTES = 200_000
MAX_QUEUE_LENGTH = 2
"""Generations of one caller that may wait. The queue has a place more, which is for others."""

REQUEST_TIMEOUT_S = 60.0
API_KEY = "the-only-key"
OTHER_KEY = "the-other-key"
KEY_NAME = f"sha256:{sha256(API_KEY.encode()).hexdigest()[:8]}"
ORIGIN = "https://chat.example.org"


def body(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], **fields}


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error object of a response, after checking its status and shape."""
    assert response.status_code == status
    content = response.json()
    assert content.keys() == {"error"}
    assert content["error"].keys() == {"message", "type", "param", "code"}
    error: dict[str, Any] = content["error"]
    return error


def messages_error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error object of a response in Anthropic's API, after checking its status and shape."""
    assert response.status_code == status
    content = response.json()
    assert content.keys() == {"type", "error", "request_id"}
    assert content["type"] == "error"
    assert content["request_id"] == response.headers.get("request-id")
    assert content["error"].keys() - {"details"} == {"type", "message"}
    error: dict[str, Any] = content["error"]
    return error


@dataclass
class Running:
    """A running frontend, and the engine behind it.

    At `guarded_url` requests need API_KEY, and pages of ORIGIN may call. At `details_url` usage has the details of the
    prompt. At `impatient_url` answers may take 2 s. At `storing_url` requests need
    API_KEY or OTHER_KEY, and responses are stored in the file `store`.
    """

    url: str
    guarded_url: str
    details_url: str
    impatient_url: str
    storing_url: str
    store: Path
    triton: FakeTriton
    admission: Admission
    kill_triton: Callable[[], None]
    revive_triton: Callable[[], None]

    def wait_until(self, condition: Callable[[], bool], within_s: float = 30.0) -> None:
        """Fails if `condition` does not come true in time."""
        give_up = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < give_up, "waited in vain"
            time.sleep(0.005)


@pytest.fixture(scope="session")
def engine_dir(mixtral_tokenizer_dir: Path) -> Path:
    """A published engine directory without the engine, with Mixtral's tokenizer."""
    write_manifest(mixtral_tokenizer_dir, MODEL)
    return mixtral_tokenizer_dir


@pytest.fixture(scope="session")
def mixtral(engine_dir: Path) -> ServedModel:
    """Mixtral's template and tokenizer."""
    return load_chat_model(engine_dir)


@pytest.fixture(scope="session")
def chatml(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    """A byte-level tokenizer with a ChatML template."""
    directory = tmp_path_factory.mktemp("chatml")
    write_chatml_tokenizer(directory)
    return load_chat_model(directory)


def load_chat_model(directory: Path) -> ServedModel:
    """The model of an engine directory, as __main__ makes it."""
    files = read_engine_dir(directory)
    tokenizer = Tokenizer(files.tokenizer_json)
    return ServedModel(
        template=ChatTemplate(files.chat_template, files.special_tokens),
        tokenizer=tokenizer,
        end_tokens=files.end_tokens,
        engine=read_engine(FakeTriton().config()),
        vocab_size=files.vocab_size,
        allow_chat_template=False,
        sampling_defaults=SamplingDefaults(),
    )


@pytest.fixture(scope="session")
def session_frontend(mixtral: ServedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Started once; tests change only the fake Triton's script."""
    started: list[Running] = []
    stop, ready = threading.Event(), threading.Event()
    store = tmp_path_factory.mktemp("store") / "responses.sqlite"
    thread = threading.Thread(target=lambda: asyncio.run(_serve(mixtral, store, started, ready, stop)))
    thread.start()
    assert ready.wait(60), "the frontend did not start"
    yield started[0]
    stop.set()
    thread.join(60)


@pytest.fixture
def frontend(session_frontend: Running) -> Iterator[Running]:
    """The frontend, with the fake Triton reset. After each test no generation may be left running."""
    session_frontend.triton.reset()
    yield session_frontend
    session_frontend.triton.ready = True
    session_frontend.wait_until(lambda: session_frontend.triton.num_running == 0)
    session_frontend.wait_until(lambda: session_frontend.admission.num_running == 0)


@pytest.fixture
def triton(frontend: Running) -> FakeTriton:
    """The engine behind `frontend`."""
    return frontend.triton


@pytest.fixture
def http(frontend: Running) -> Iterator[httpx.Client]:
    """A plain client."""
    with httpx.Client(base_url=frontend.url, timeout=60) as client:
        yield client


@pytest.fixture
def guarded(frontend: Running) -> Iterator[httpx.Client]:
    """A plain client, without a key, of the frontend that needs one."""
    with httpx.Client(base_url=frontend.guarded_url, timeout=60) as client:
        yield client


@pytest.fixture
def client(frontend: Running) -> Iterator[openai.OpenAI]:
    """OpenAI's own client."""
    with openai.OpenAI(base_url=f"{frontend.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def make_service(model: ServedModel, client: TritonClient, triton_url: str) -> Service:
    """The parts of a frontend, as serve.py puts them together."""
    admission = Admission(client.engine.max_batch_size, MAX_QUEUE_LENGTH + 1)
    metrics = Metrics(MODEL, client.engine.max_seq_len, key_names=[KEY_NAME])
    return Service(
        model_names=(MODEL, "mixtral"),
        served_model=model,
        triton=client,
        admission=admission,
        overview=OwnOverview(OwnCounts(metrics, client), admission),
        guides=GuideCompiler(vocabulary_of(model)),
        metrics=metrics,
        body_memory=BodyMemory(MAX_BODY_BYTES),
        max_body_bytes=MAX_BODY_BYTES,
        request_timeout_s=REQUEST_TIMEOUT_S,
        reject_unknown_parameters=False,
        started=1_700_000_000,
        engine_versions={"openvino": "2026.1"},
        tokenizer_config={"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "chat_template": "{{ messages }}"},
        triton_metrics_url=f"{triton_url}/metrics",
    )


async def _serve(
    model: ServedModel, store: Path, started: list[Running], ready: threading.Event, stop: threading.Event
) -> None:
    fake, loop = FakeTriton(), asyncio.get_running_loop()
    runner = web.AppRunner(fake.application(), shutdown_timeout=0.1)
    await runner.setup()
    port = await _listen(runner, 0)
    triton_url = f"http://127.0.0.1:{port}"
    async with (
        open_triton(triton_url, fake.model, startup_timeout_s=5) as client,
        open_triton(triton_url, fake.model, startup_timeout_s=5, with_cached_tokens=True) as details_client,
    ):
        service = make_service(model, client, triton_url)
        assert isinstance(service.admission, Admission)
        reporters = (log_answer, service.metrics.count_answer)
        open_app = with_middleware(create_app(service), reporters=reporters)
        with_details = with_middleware(create_app(replace(service, triton=details_client)))
        guarded = with_middleware(
            create_app(service), read_api_keys(None, [API_KEY]), CallerLimits(), [ORIGIN], reporters=reporters
        )
        responses = ResponseStore(store, 2**20, 30)
        storing = with_middleware(
            create_app(replace(service, responses=responses)),
            read_api_keys(None, [API_KEY, OTHER_KEY]),
            reporters=reporters,
        )
        async with (
            _uvicorn(open_app, service.metrics.count_error) as url,
            _uvicorn(guarded) as guarded_url,
            _uvicorn(with_details) as details_url,
            _uvicorn(with_middleware(create_app(replace(service, request_timeout_s=2)))) as impatient_url,
            _uvicorn(storing) as storing_url,
        ):

            def in_loop(work: Callable[[], object]) -> None:
                asyncio.run_coroutine_threadsafe(_call(work), loop).result(60)

            started.append(
                Running(
                    url=url,
                    guarded_url=guarded_url,
                    details_url=details_url,
                    impatient_url=impatient_url,
                    storing_url=storing_url,
                    store=store,
                    triton=fake,
                    admission=service.admission,
                    kill_triton=lambda: in_loop(lambda: _kill(runner)),
                    revive_triton=lambda: in_loop(lambda: _listen(runner, port)),
                )
            )
            ready.set()
            await asyncio.to_thread(stop.wait)
        await service.guides.close()
        responses.close()
    await runner.cleanup()


@asynccontextmanager
async def _uvicorn(app: ASGIApp, on_refusal: OnRefusal = lambda error: None) -> AsyncIterator[str]:
    connection: Any = connection_factory(ConnectionLimits(), ConnectionCounts(2000, 1000), on_refusal)
    config = uvicorn.Config(app, port=0, http=connection, ws="none", lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()
    yield f"http://{host}:{port}"
    server.should_exit = True
    await serving


async def _call(work: Callable[[], object]) -> None:
    result = work()
    if asyncio.iscoroutine(result):
        await result


async def _listen(runner: web.AppRunner, port: int) -> int:
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    return int(runner.addresses[-1][1])


async def _kill(runner: web.AppRunner) -> None:
    """As kill -9 looks from outside: the port is closed, and every connection is reset."""
    for site in list(runner.sites):
        await site.stop()
    assert runner.server is not None
    for connection in list(runner.server.connections):
        if connection.transport is not None:
            connection.transport.abort()
