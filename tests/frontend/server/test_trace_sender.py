"""Sending traces: many at once, again where that may help, and never more waiting than allowed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from frontend.errors import StartupError
from frontend.server.trace_sender import TraceSender
from frontend.server.trace_settings import ExportSettings

SOON = {"OTEL_BSP_SCHEDULE_DELAY": "20"}
ORIGIN = ResourceSpans(scope_spans=[ScopeSpans()])


class Collector:
    """Answers with `statuses`, one after the other, then 200; has the names of the spans of each export it took."""

    def __init__(self, *statuses: int) -> None:
        self.exports: list[list[str]] = []
        self.headers: list[Mapping[str, str]] = []
        self.url = ""
        self._statuses = list(statuses)

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()  # decompressed by aiohttp
        self.headers.append(request.headers)
        if self._statuses:
            return web.Response(status=self._statuses.pop(0))
        export = ExportTraceServiceRequest.FromString(body)
        self.exports.append([span.name for span in export.resource_spans[0].scope_spans[0].spans])
        return web.Response()


@asynccontextmanager
async def sending(collector: Collector, **variables: str) -> AsyncIterator[TraceSender]:
    """A sender to the collector. Leaving closes it."""
    application = web.Application()
    application.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
    sender = TraceSender(url, ORIGIN, ExportSettings.from_environ(variables))
    yield sender
    await sender.close()
    await runner.cleanup()


def trace(*names: str) -> tuple[bytes, int]:
    return ScopeSpans(spans=[Span(name=name) for name in names]).SerializeToString(), len(names)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0.01)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frontend.server.trace_sender._PAUSES_S", (0.0, 0.0, 0.0))


def test_what_waits_is_sent_together_and_the_rest_at_the_end() -> None:
    collector = Collector()

    async def scenario() -> None:
        async with sending(collector, **SOON) as sender:
            sender.add(*trace("a", "b"))
            sender.add(*trace("c"))
            await until(lambda: bool(collector.exports))
            sender.add(*trace("d"))

    run(scenario())
    assert collector.exports == [["a", "b", "c"], ["d"]]


def test_a_full_batch_does_not_wait() -> None:
    collector = Collector()

    async def scenario() -> None:
        async with sending(collector, OTEL_BSP_SCHEDULE_DELAY="3600000", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="2") as sender:
            sender.add(*trace("a"))
            sender.add(*trace("b"))
            await until(lambda: bool(collector.exports))

    run(scenario())
    assert collector.exports == [["a", "b"]]


@pytest.mark.usefixtures("no_pauses")
def test_a_collector_that_is_overloaded_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    collector = Collector(503, 429)

    async def scenario() -> None:
        async with sending(collector, **SOON) as sender:
            sender.add(*trace("a"))

    run(scenario())
    assert collector.exports == [["a"]]
    assert caplog.messages == []


@pytest.mark.usefixtures("no_pauses")
def test_what_is_refused_is_dropped_with_a_line_and_what_follows_is_sent(caplog: pytest.LogCaptureFixture) -> None:
    collector = Collector(400, 503, 503, 503, 503)

    async def scenario() -> None:
        async with sending(collector, **SOON) as sender:
            for name in ("a", "b", "c"):
                sender.add(*trace(name))
                seen = len(caplog.messages) + len(collector.exports)
                await until(lambda seen=seen: len(caplog.messages) + len(collector.exports) > seen)  # type: ignore[misc]

    run(scenario())
    assert collector.exports == [["c"]]
    assert caplog.messages == [
        "traces: 127.0.0.1 does not take them: status 400; 1 spans are dropped",
        "traces: 127.0.0.1 does not take them: status 503; 1 spans are dropped",
    ]


def test_no_more_wait_than_allowed(caplog: pytest.LogCaptureFixture) -> None:
    collector = Collector()

    async def scenario() -> None:
        async with sending(collector, OTEL_BSP_MAX_QUEUE_SIZE="2") as sender:
            for name in ("a", "b", "c", "d"):
                sender.add(*trace(name))

    run(scenario())
    assert collector.exports == [["a", "b"]]
    assert caplog.messages == ["traces: 2 spans are dropped, as more than 2 would have waited"]


@pytest.mark.parametrize("compression", ["gzip", "deflate", "none"])
def test_headers_and_compression_are_those_of_the_variables(compression: str) -> None:
    collector = Collector()

    async def scenario() -> None:
        variables = {
            "OTEL_EXPORTER_OTLP_HEADERS": "api-key=some%20key,other=1",
            "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": compression,
        }
        async with sending(collector, **variables) as sender:
            sender.add(*trace("a"))

    run(scenario())
    assert collector.exports == [["a"]]
    (headers,) = collector.headers
    assert (headers["api-key"], headers["other"]) == ("some key", "1")
    assert headers["content-type"] == "application/x-protobuf"
    assert headers.get("content-encoding", "none") == compression


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "a number above 0"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1", "a number above 0"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "nan", "a number above 0"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip", "none, gzip, deflate"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/file", "No such file"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str, accepted: str) -> None:
    with pytest.raises(StartupError) as refused:
        ExportSettings.from_environ({name: value})
    assert value in str(refused.value)
    assert accepted in str(refused.value)


def test_the_variables_for_traces_come_first() -> None:
    found = ExportSettings.from_environ({"OTEL_EXPORTER_OTLP_TIMEOUT": "3", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "7"})
    assert (found.timeout_s, found.delay_s, found.max_waiting, found.batch_size) == (7, 5, 2048, 512)
