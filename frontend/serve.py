"""Put the parts of the frontend together, and serve until a signal."""

import asyncio
import gc
import logging
import platform
import socket
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from frontend.guided_decoding.vocabulary import vocabulary_of
from frontend.openai.body_size import default_max_body_bytes
from frontend.server.app import create_app
from frontend.server.body_memory import BodyMemory
from frontend.server.connection import connection_factory
from frontend.server.connection_counts import ConnectionCounts
from frontend.server.connection_limits import ConnectionLimits
from frontend.server.descriptors import connections_that_fit, raise_descriptor_limit
from frontend.server.drain import Drain
from frontend.server.metrics import Metrics
from frontend.server.middleware.api_keys import read_api_keys
from frontend.server.middleware.stack import with_middleware
from frontend.server.overview import OwnCounts
from frontend.server.request_log import RequestLog, log_answer
from frontend.server.response_store import ResponseStore
from frontend.server.service import Service
from frontend.server.shared import Shared
from frontend.server.stats_log import StatsLog
from frontend.server.uvicorn import Server, tls_context, uvicorn_config
from frontend.text.chat_template import ChatTemplate
from frontend.text.served_model import ServedModel
from frontend.text.tokenizer import Tokenizer
from frontend.triton.client import TritonClient, open_triton

from .engine_dir import EngineDir, read_engine_dir, read_sampling_defaults, served_names
from .errors import StartupError
from .generation import Engine, SamplingDefaults
from .guided_decoding import GuideCompiler
from .settings import TRITON_KEY_HEADER, Settings

if TYPE_CHECKING:
    from frontend.server.traces import Traces

_log = logging.getLogger("frontend")


async def serve(settings: Settings, shared: Shared, listeners: list[socket.socket] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, and end in order: see `Server`. Raises StartupError.

    `listeners` are bound sockets, in place of the host and the port of the settings.
    """
    file_keys, tls = read_api_keys(settings.api_key_file, ()), tls_context(settings)
    api_keys = (*file_keys, *read_api_keys(None, settings.api_keys))
    traces = _traces(settings.otlp_traces_endpoint) if settings.otlp_traces_endpoint else None
    engine_dir = settings.engine_dir.resolve()  # of one engine, though another is published meanwhile
    files = read_engine_dir(engine_dir, settings.chat_template)
    tokenizer = Tokenizer(files.tokenizer_json)
    template = ChatTemplate(files.chat_template, files.special_tokens)
    async with open_triton(
        settings.triton_url,
        settings.model,
        startup_timeout_s=settings.startup_timeout_s,
        with_cached_tokens=settings.enable_prompt_tokens_details,
        metrics_url=settings.triton_metrics_url,
        headers={TRITON_KEY_HEADER: settings.triton_key} if settings.triton_key else {},
        to_budget=shared.to_budget,
    ) as triton:
        served_model = ServedModel(
            template=template,
            tokenizer=tokenizer,
            end_tokens=files.end_tokens,
            engine=triton.engine,
            vocab_size=files.vocab_size,
            allow_chat_template=settings.allow_chat_template,
            sampling_defaults=_sampling_defaults(settings, engine_dir, triton.engine),
        )
        service = await _to_service(settings, shared, files, served_model, triton, {key.name for key in file_keys})
        drain = Drain()
        routes = create_app(service, root_path=settings.root_path, with_pages=not settings.no_pages)
        reporters = [log_answer, service.metrics.count_answer, *((traces.end,) if traces else ())]
        on_arrival = traces.begin if traces else None
        app = with_middleware(routes, api_keys, shared.limits, settings.cors_origin, drain, reporters, on_arrival)
        connection = connection_factory(
            ConnectionLimits(), _connection_counts(settings, triton), service.metrics.count_error
        )
        server = Server(
            uvicorn_config(app, settings, tls, connection), drain, settings.shutdown_timeout_s, settings.drain_seconds
        )
        gc.collect()
        gc.freeze()  # what exists now lives as long as the process: the garbage collector need not scan it again
        stats = None if settings.disable_log_stats else asyncio.create_task(StatsLog(service).run())
        try:
            await server.serve(listeners)
        finally:
            if stats is not None:
                stats.cancel()
            await service.guides.close()
            if service.responses is not None:
                await asyncio.to_thread(service.responses.close)
            if traces is not None:
                await asyncio.to_thread(traces.close)


def _traces(endpoint: str) -> "Traces":
    """Raises StartupError if OpenTelemetry is not installed."""
    try:
        from frontend.server.traces import Traces
    except ModuleNotFoundError as exc:
        raise StartupError(
            f"--otlp-traces-endpoint needs {exc.name}; install it with: pip install 'mixtral-triton[traces]'"
        ) from exc
    return Traces(endpoint, version("mixtral-triton"))


def _sampling_defaults(settings: Settings, engine_dir: Path, engine: Engine) -> SamplingDefaults:
    """The checkpoint's, if it has any and they are wanted. A default that the engine has no input for is logged."""
    if settings.generation_config == "vllm":
        return SamplingDefaults()
    named = read_sampling_defaults(engine_dir)
    honoured = named.honoured_by(engine)
    if honoured != named:
        _log.warning("generation_config.json has %s; the engine has inputs for %s only", named, honoured)
    elif named != SamplingDefaults():
        _log.info("Default sampling of the checkpoint's generation_config.json: %s", named)
    return honoured


def _connection_counts(settings: Settings, triton: TritonClient) -> ConnectionCounts:
    max_connections = connections_that_fit(
        settings.max_connections, raise_descriptor_limit(), triton.engine.max_batch_size
    )
    return ConnectionCounts(max_connections, settings.max_connections_per_address, settings.forwarded_allow_ips)


async def _to_service(
    settings: Settings,
    shared: Shared,
    files: EngineDir,
    served_model: ServedModel,
    triton: TritonClient,
    key_names: set[str],
) -> Service:
    max_body_bytes = settings.max_body_bytes or default_max_body_bytes(triton.engine.max_seq_len)
    model_names = served_names(settings.served_model_name, files.checkpoint_path)
    max_model_len = triton.engine.max_seq_len
    metrics = Metrics(model_names[0], max_model_len, key_names=key_names, build=_build_info(files, triton.model))
    admission, overview = await shared.start(triton.engine.max_batch_size, OwnCounts(metrics, triton))
    return Service(
        model_names=model_names,
        served_model=served_model,
        triton=triton,
        admission=admission,
        overview=overview,
        guides=GuideCompiler(vocabulary_of(served_model), num_frontends=settings.workers),
        metrics=metrics,
        body_memory=BodyMemory(max_body_bytes),
        max_body_bytes=max_body_bytes,
        request_timeout_s=settings.request_timeout_s,
        reject_unknown_parameters=settings.reject_unknown_parameters,
        started=int(time.time()),
        engine_versions=files.versions,
        tokenizer_config=files.tokenizer_config | {"chat_template": files.chat_template},
        triton_metrics_url=settings.triton_metrics_url,
        responses=_response_store(settings),
        system_fingerprint=files.fingerprint if settings.system_fingerprint else None,
        request_log=RequestLog(
            is_enabled=not settings.disable_log_requests,
            decode=served_model.tokenizer.decode if settings.log_prompts else None,
            max_chars=settings.max_log_len,
        ),
    )


def _response_store(settings: Settings) -> ResponseStore | None:
    if settings.response_store is None:
        return None
    return ResponseStore(settings.response_store, settings.response_store_bytes, settings.response_store_days)


def _build_info(files: EngineDir, model: str) -> dict[str, str]:
    """Labels for Prometheus. `engine_versions` are those that the engine was built with."""
    return {
        "version": version("mixtral-triton"),
        "python": platform.python_version(),
        "model": model,
        "engine_versions": ", ".join(f"{name} {release}" for name, release in files.versions.items()),
    }
