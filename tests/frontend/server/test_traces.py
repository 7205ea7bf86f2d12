"""Traces: sent to a real OTLP receiver in this process, which decodes them as a collector does."""

import asyncio
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

from frontend.__main__ import main
from frontend.server.app import create_app
from frontend.server.caller_limits import CallerLimits
from frontend.server.middleware.api_keys import read_api_keys
from frontend.server.middleware.stack import with_middleware
from frontend.server.request_log import log_answer
from frontend.server.traces import Traces
from frontend.settings import Settings
from frontend.text.served_model import ServedModel
from frontend.triton.client import open_triton
from tests.frontend.conftest import API_KEY, CHAT, KEY_NAME, MODEL, body, make_service
from tests.frontend.fake_triton import Endless, Events, FakeTriton, Refusal, Script
from tests.frontend.server.serving import serving

KEY = {"authorization": f"Bearer {API_KEY}"}
TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01", "tracestate": "vendor=1"}
VLLMS = {
    # vllm/tracing.py
    "gen_ai.usage.completion_tokens", "gen_ai.usage.prompt_tokens", "gen_ai.usage.num_sequences", "gen_ai.request.id",
    "gen_ai.request.n", "gen_ai.latency.time_in_queue", "gen_ai.latency.time_to_first_token", "gen_ai.latency.e2e",
    "gen_ai.latency.time_in_model_prefill", "gen_ai.latency.time_in_model_decode",
    "gen_ai.latency.time_in_model_inference",
}  # fmt: skip
SECRET = "a word that no span may have"


class Receiver:
    """A collector: what has been sent to it so far."""

    def __init__(self) -> None:
        self.exports: list[ExportTraceServiceRequest] = []
        self.paths: set[str] = set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.paths.add(self.path)
                receiver.exports.append(ExportTraceServiceRequest.FromString(sent))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for export in self.exports
            for resource in export.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def roots(self) -> list[Span]:
        """The spans of requests, in the order in which they ended."""
        return sorted(
            (span for span in self.spans if span.kind == Span.SPAN_KIND_SERVER), key=lambda s: s.end_time_unix_nano
        )

    def steps(self, root: Span) -> list[Span]:
        """The spans below that of a request, in the order of their begin."""
        found = [span for span in self.spans if span.parent_span_id == root.span_id]
        return sorted(found, key=lambda span: span.start_time_unix_nano)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    started = Receiver()
    yield started
    started.close()


def attributes(span: Span) -> dict[str, Any]:
    """Name to value; a list as a list."""

    def plain(value: Any) -> Any:
        kind = value.WhichOneof("value")
        return [plain(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, kind)

    return {attribute.key: plain(attribute.value) for attribute in span.attributes}


@asynccontextmanager
async def traced(model: ServedModel, receiver: Receiver, script: Script) -> AsyncIterator[Any]:
    """A client of a frontend that sends traces, and the engine. Leaving sends what is left to the receiver."""
    fake, traces = FakeTriton(), Traces(f"{receiver.url}/v1/traces", "1.2.3")
    fake.script = script
    runner = web.AppRunner(fake.application(), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    triton_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with open_triton(triton_url, fake.model, startup_timeout_s=5) as triton:
        service = replace(make_service(model, triton, triton_url), request_timeout_s=60)  # for a busy machine
        app = with_middleware(
            create_app(service), read_api_keys(None, [API_KEY]), CallerLimits(),
            reporters=(log_answer, traces.end), on_arrival=traces.begin,
        )  # fmt: skip
        async with serving(app) as server:
            host, port = server.servers[0].sockets[0].getsockname()
            async with httpx.AsyncClient(base_url=f"http://{host}:{port}", headers=KEY, timeout=60) as client:
                yield client, fake
        await service.guides.close()
    await runner.cleanup()
    await asyncio.to_thread(traces.close)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 120))


def ask(
    model: ServedModel, receiver: Receiver, script: Script, *bodies: Mapping[str, Any], headers: Mapping[str, str] = {}
) -> list[httpx.Response]:
    """The answers to some chats, one after the other, with their traces in the receiver."""
    answers: list[httpx.Response] = []

    async def scenario() -> None:
        async with traced(model, receiver, script) as (client, _):
            for each in bodies:
                answers.append(await client.post(CHAT, json=each, headers=headers))

    run(scenario())
    return answers


SLOW: Sequence[Any] = [Events([[6004]], pause_s=0.05), Events([[21209]], pause_s=0.05), Events([[]])]


def test_a_request_is_a_span_with_one_for_each_step(mixtral: ServedModel, receiver: Receiver) -> None:
    before = time.time_ns()
    (answer,) = ask(mixtral, receiver, SLOW, body(max_tokens=9, temperature=0.5, guided_choice=["Ein Haus", "no"]))
    assert answer.status_code == 200
    (root,) = receiver.roots
    steps = receiver.steps(root)
    assert [step.name for step in steps] == ["read", "tokenize", "compile", "queue", "first_token", "decode"]
    assert len(receiver.spans) == 7
    assert {span.trace_id for span in receiver.spans} == {root.trace_id}
    assert before <= root.start_time_unix_nano < root.end_time_unix_nano <= time.time_ns()
    for earlier, later in pairwise(steps):
        assert earlier.end_time_unix_nano == later.start_time_unix_nano
    assert root.start_time_unix_nano <= steps[0].start_time_unix_nano
    assert steps[-1].end_time_unix_nano == root.end_time_unix_nano
    assert receiver.paths == {"/v1/traces"}


def test_its_attributes_are_those_of_the_conventions_and_of_vllm(mixtral: ServedModel, receiver: Receiver) -> None:
    sent = body(max_tokens=2, temperature=0.5, top_p=0.9, n=2, presence_penalty=1)
    (answer,) = ask(mixtral, receiver, [Events([[6004], [21209]], pause_s=0.02)], sent)
    (root,) = receiver.roots
    found, usage = attributes(root), answer.json()["usage"]
    assert root.name == f"chat {MODEL}"
    latencies = {name: found.pop(name) for name in list(found) if name.startswith("gen_ai.latency")}
    assert found.pop("gen_ai.response.time_to_first_chunk") == latencies["gen_ai.latency.time_to_first_token"]
    assert found == {
        "http.request.method": "POST", "url.path": CHAT, "client.address": "127.0.0.1", "enduser.id": KEY_NAME,
        "frontend.request_id": answer.headers["x-request-id"], "http.response.status_code": 200,
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "mixtral-triton",
        "gen_ai.request.model": MODEL, "gen_ai.response.model": MODEL,
        "gen_ai.response.id": answer.json()["id"], "gen_ai.request.id": answer.json()["id"],
        "gen_ai.request.stream": False, "gen_ai.request.max_tokens": 2, "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9, "gen_ai.request.presence_penalty": 1.0,
        "gen_ai.request.choice.count": 2, "gen_ai.request.n": 2, "gen_ai.usage.num_sequences": 2,
        "gen_ai.usage.input_tokens": usage["prompt_tokens"], "gen_ai.usage.prompt_tokens": usage["prompt_tokens"],
        "gen_ai.usage.output_tokens": 4, "gen_ai.usage.completion_tokens": 4,
        "gen_ai.response.finish_reasons": ["length"],
    }  # fmt: skip
    steps = {step.name: (step.end_time_unix_nano - step.start_time_unix_nano) / 1e9 for step in receiver.steps(root)}
    e2e = (root.end_time_unix_nano - root.start_time_unix_nano) / 1e9
    first_token_s = latencies.pop("gen_ai.latency.time_to_first_token")
    assert steps["queue"] + steps["first_token"] <= first_token_s <= e2e - steps["decode"]
    assert latencies == {
        "gen_ai.latency.time_in_queue": pytest.approx(steps["queue"], abs=1e-5),
        "gen_ai.latency.time_in_model_prefill": pytest.approx(steps["first_token"], abs=1e-5),
        "gen_ai.latency.time_in_model_decode": pytest.approx(steps["decode"], abs=1e-5),
        "gen_ai.latency.time_in_model_inference": pytest.approx(steps["first_token"] + steps["decode"], abs=1e-5),
        "gen_ai.latency.e2e": pytest.approx(e2e, abs=1e-5),
    }


def test_every_genai_name_is_the_conventions_or_vllms(mixtral: ServedModel, receiver: Receiver) -> None:
    ask(mixtral, receiver, SLOW, body(n=2, top_k=5, frequency_penalty=1, stream=True))
    conventions = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_")}
    used = {name for name in attributes(receiver.roots[0]) if name.startswith("gen_ai.")}
    assert used <= conventions | VLLMS
    assert used >= VLLMS


def test_a_clients_traceparent_is_the_parent_and_the_engine_gets_ours(mixtral: ServedModel, receiver: Receiver) -> None:
    handed_on: list[dict[str, str]] = []

    async def scenario() -> None:
        async with traced(mixtral, receiver, SLOW) as (client, fake):
            await client.post(CHAT, json=body(stream=True), headers=PARENT)
            handed_on.extend(fake.headers)

    run(scenario())
    (root,) = receiver.roots
    assert (root.trace_id.hex(), root.parent_span_id.hex(), root.trace_state) == (TRACE_ID, PARENT_ID, "vendor=1")
    (headers,) = handed_on
    assert headers["traceparent"] == f"00-{TRACE_ID}-{root.span_id.hex()}-01"
    assert headers["tracestate"] == "vendor=1"


@pytest.mark.parametrize("given", ["no traceparent", f"00-{'0' * 32}-{PARENT_ID}-01", f"00-{TRACE_ID}-xyz-01", ""])
def test_a_traceparent_that_is_none_begins_a_new_trace(mixtral: ServedModel, receiver: Receiver, given: str) -> None:
    (answer,) = ask(mixtral, receiver, SLOW, body(), headers={"traceparent": given})
    assert answer.status_code == 200
    (root,) = receiver.roots
    assert root.parent_span_id == b""
    assert root.trace_id.hex() not in (TRACE_ID, "0" * 32)


def test_a_client_that_does_not_sample_has_no_trace(mixtral: ServedModel, receiver: Receiver) -> None:
    ask(mixtral, receiver, SLOW, body(), headers={"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-00"})
    assert receiver.spans == []


def test_refusals_and_failures_have_their_status_and_code(mixtral: ServedModel, receiver: Receiver) -> None:
    ask(mixtral, receiver, [Refusal(500, "boom")], body(model="gpt-4"), body(temperature=9), body())
    unknown, invalid, failed = receiver.roots
    assert [attributes(each)["http.response.status_code"] for each in (unknown, invalid, failed)] == [404, 400, 500]
    assert [attributes(each)["error.type"] for each in (unknown, invalid, failed)] == ["model_not_found", "400", "500"]
    assert [each.status.code for each in (unknown, invalid, failed)] == [
        Status.STATUS_CODE_UNSET, Status.STATUS_CODE_UNSET, Status.STATUS_CODE_ERROR,
    ]  # fmt: skip
    assert [each.name for each in (unknown, invalid, failed)] == ["POST", "POST", f"chat {MODEL}"]
    assert [step.name for step in receiver.steps(invalid)] == ["read", "tokenize"]
    assert [step.name for step in receiver.steps(failed)] == ["read", "tokenize", "queue", "first_token"]


def test_a_request_without_a_key_has_a_trace_without_steps(mixtral: ServedModel, receiver: Receiver) -> None:
    (answer,) = ask(mixtral, receiver, SLOW, body(), headers={"authorization": "Bearer wrong"})
    assert answer.status_code == 401
    (root,) = receiver.roots
    assert attributes(root)["error.type"] == "invalid_api_key"
    assert receiver.steps(root) == []


def test_a_client_that_left_ends_the_trace(mixtral: ServedModel, receiver: Receiver) -> None:
    async def scenario() -> None:
        async with traced(mixtral, receiver, [Endless(6004)]) as (client, fake):
            async with client.stream("POST", CHAT, json=body(stream=True)) as stream:
                await anext(stream.aiter_raw())
            while fake.num_running:
                await asyncio.sleep(0.01)

    run(scenario())
    (root,) = receiver.roots
    found = attributes(root)
    assert found["http.response.status_code"] == 499
    assert found["gen_ai.usage.output_tokens"] > 0
    assert "gen_ai.response.finish_reasons" not in found
    assert receiver.steps(root)[-1].name == "decode"


def test_a_completion_is_named_so_and_health_checks_have_no_trace(mixtral: ServedModel, receiver: Receiver) -> None:
    async def scenario() -> None:
        async with traced(mixtral, receiver, SLOW) as (client, _):
            for path in ("/health", "/metrics", "/v1/models", "/", "/health/generate"):
                assert (await client.get(path)).status_code == 200
            completion = {"model": MODEL, "prompt": "Ein", "max_tokens": 2}
            for path in ("/v1/completions", "/invocations"):
                assert (await client.post(path, json=completion)).status_code == 200

    run(scenario())
    assert [root.name for root in receiver.roots] == [f"text_completion {MODEL}"] * 2


def test_no_text_of_a_client_is_in_a_trace(mixtral: ServedModel, receiver: Receiver) -> None:
    sent = [
        body(messages=[{"role": "user", "content": SECRET}]),
        body(stop=[SECRET]),
        body(guided_choice=[SECRET]),
        body(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {"const": SECRET}}}),
        body(chat_template_kwargs={SECRET: SECRET}),
        body(messages=[{"role": "user", "content": SECRET * 10_000}]),
        {"model": MODEL, "messages": SECRET},
    ]
    ask(mixtral, receiver, [Events([[6004], [21209]])], *sent)
    assert len(receiver.roots) == len(sent)
    everything = b"".join(export.SerializeToString() for export in receiver.exports)
    assert SECRET.encode() not in everything
    assert b"Ein Haus" not in everything
    assert API_KEY.encode() not in everything


def test_the_service_has_a_name_and_a_version(
    mixtral: ServedModel, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def service() -> dict[str, str]:
        resource = receiver.exports[-1].resource_spans[0].resource
        return {attribute.key: attribute.value.string_value for attribute in resource.attributes}

    ask(mixtral, receiver, SLOW, body())
    assert (service()["service.name"], service()["service.version"]) == ("mixtral-triton", "1.2.3")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "chat-eu")
    ask(mixtral, receiver, SLOW, body())
    assert service()["service.name"] == "chat-eu"


def test_without_a_collector_requests_are_answered(mixtral: ServedModel, receiver: Receiver) -> None:
    receiver.close()
    started = time.monotonic()
    answers = ask(mixtral, receiver, [Events([[6004]])], *[body()] * 3)
    assert [answer.status_code for answer in answers] == [200] * 3
    assert time.monotonic() - started < 20
    receiver.__init__()  # type: ignore[misc]  # for the fixture, which closes it again


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://collector:4318", "http://collector:4318/v1/traces"),
        ("https://collector:4318/", "https://collector:4318/v1/traces"),
        ("http://collector/custom/path", "http://collector/custom/path"),
    ],
)
def test_the_endpoint_is_a_url_with_or_without_its_path(given: str, url: str) -> None:
    settings = Settings.from_args(["--engine-dir", "/e", "--otlp-traces-endpoint", given], {})
    assert settings.otlp_traces_endpoint == url


@pytest.mark.parametrize("given", ["grpc://collector:4317", "collector:4318", "http://", ""])
def test_another_endpoint_is_refused(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        Settings.from_args(["--engine-dir", "/e", "--otlp-traces-endpoint", given], {})
    assert "accepted: http://HOST:4318/v1/traces, as traces go over HTTP" in capsys.readouterr().err


def test_a_missing_package_is_named(
    engine_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "frontend.server.traces", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.setattr(
        sys, "argv", ["frontend", "--engine-dir", str(engine_dir), "--otlp-traces-endpoint", "http://localhost:4318"]
    )
    assert main() == 1
    said = capsys.readouterr().err
    assert re.search(r"--otlp-traces-endpoint needs opentelemetry.* pip install 'mixtral-triton\[traces\]'", said)


def test_the_sdk_is_not_imported_without_the_option() -> None:
    """Of OpenTelemetry's API another dependency may import parts."""
    sdk = ("opentelemetry.sdk", "opentelemetry.exporter", "google.protobuf", "frontend.server.traces")
    code = f"import sys, frontend.__main__; print([name for name in sys.modules if name.startswith({sdk})])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
